// How are two matrices multiplied fast in plain JavaScript?  Several sums at a time, each number read once for all.
//
// A matrix is a Float32Array, row after row; its width is its length over its number of rows.  Two rows of the one and
// four of the other are taken together, so that eight products need six reads.  Where a matrix has no further row the
// last one is taken again: what it gives is the same number, or is multiplied by 0.

/** z = x W + b of x [n, k] and W [k, m]: [n, m]; b [m] is added to every row, where there is one. */
function product(x, n, W, b) {
  const k = x.length / n;
  const m = W.length / k;
  const z = new Float32Array(n * m);
  if (b) for (let i = 0; i < n; i++) z.set(b, i * m);
  const at = (i, t) => (i < n && t < k ? x[i * k + t] : 0);
  const row = (t) => Math.min(t, k - 1) * m;
  for (let t = 0; t < k; t += 4) {
    const w0 = row(t), w1 = row(t + 1), w2 = row(t + 2), w3 = row(t + 3);
    for (let i = 0; i < n; i += 2) {
      const a0 = at(i, t), a1 = at(i, t + 1), a2 = at(i, t + 2), a3 = at(i, t + 3);
      const b0 = at(i + 1, t), b1 = at(i + 1, t + 1), b2 = at(i + 1, t + 2), b3 = at(i + 1, t + 3);
      const za = i * m, zb = Math.min(i + 1, n - 1) * m;
      for (let j = 0; j < m; j++) {
        const p = W[w0 + j], q = W[w1 + j], r = W[w2 + j], s = W[w3 + j];
        z[za + j] += a0 * p + a1 * q + a2 * r + a3 * s;
        z[zb + j] += b0 * p + b1 * q + b2 * r + b3 * s;
      }
    }
  }
  return z;
}

/** z = x Wᵀ of x [n, k] and W [m, k]: [n, m].  Equal rows of W give equal numbers, bit for bit: words tie exactly. */
function productTransposed(x, n, W) {
  const k = x.length / n;
  const m = W.length / k;
  const z = new Float32Array(n * m);
  for (let j = 0; j < m; j += 4) {
    const j1 = Math.min(j + 1, m - 1), j2 = Math.min(j + 2, m - 1), j3 = Math.min(j + 3, m - 1);
    const w0 = j * k, w1 = j1 * k, w2 = j2 * k, w3 = j3 * k;
    for (let i = 0; i < n; i += 2) {
      const xa = i * k, xb = Math.min(i + 1, n - 1) * k;
      let a0 = 0, a1 = 0, a2 = 0, a3 = 0, b0 = 0, b1 = 0, b2 = 0, b3 = 0;
      for (let t = 0; t < k; t++) {
        const a = x[xa + t], b = x[xb + t];
        const p = W[w0 + t], q = W[w1 + t], r = W[w2 + t], s = W[w3 + t];
        a0 += a * p; a1 += a * q; a2 += a * r; a3 += a * s;
        b0 += b * p; b1 += b * q; b2 += b * r; b3 += b * s;
      }
      const za = i * m, zb = Math.min(i + 1, n - 1) * m;
      z[za + j] = a0; z[za + j1] = a1; z[za + j2] = a2; z[za + j3] = a3;
      z[zb + j] = b0; z[zb + j1] = b1; z[zb + j2] = b2; z[zb + j3] = b3;
    }
  }
  return z;
}

/** a + b, element by element. */
function plus(a, b) {
  return a.map((value, i) => value + b[i]);
}

/** a · b of two rows that begin at a[i] and b[j] and are `size` long. */
function inner(a, i, b, j, size) {
  let sum = 0;
  for (let t = 0; t < size; t++) sum += a[i + t] * b[j + t];
  return sum;
}

/** The row of `into` that begins at place i grows by s times the row of `from` that begins at place j. */
function addRow(into, i, s, from, j, size) {
  for (let t = 0; t < size; t++) into[i + t] += s * from[j + t];
}
