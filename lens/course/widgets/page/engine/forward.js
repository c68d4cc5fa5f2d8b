// What does GPT-2 compute?  Token ids up through every layer, and everything that a lens or a gradient needs is kept.
//
//     h = E[id] + P[position]
//     m = h + Attention(ln_1(h)),    h ← m + FF2(gelu(FF1(ln_2(m)))),    layer after layer
//     logits = ln_f(h) Eᵀ
//
// n tokens, d the width of the residual stream, d_m the MLP's.  A matrix [n, d] has one row for every token.

/** ln(x) = g ∘ (x − μ)/σ + b,  μ the mean of the row and σ² its variance + ε.  x [n, d]; also x̂ = (x − μ)/σ and σ. */
function layerNorm(x, n, { gain, bias }, epsilon) {
  const d = x.length / n;
  const y = new Float32Array(n * d), hat = new Float32Array(n * d), sigma = new Float64Array(n);
  for (let i = 0; i < n; i++) {
    const row = x.subarray(i * d, (i + 1) * d);
    let mean = 0, variance = 0;
    for (let j = 0; j < d; j++) mean += row[j] / d;
    for (let j = 0; j < d; j++) variance += (row[j] - mean) ** 2 / d;
    sigma[i] = Math.sqrt(variance + epsilon);
    for (let j = 0; j < d; j++) {
      hat[i * d + j] = (row[j] - mean) / sigma[i];
      y[i * d + j] = gain[j] * hat[i * d + j] + bias[j];
    }
  }
  return { y, hat, sigma };
}

const GELU = Math.sqrt(2 / Math.PI);

/** gelu(z) = ½ z (1 + tanh(c (z + 0.044715 z³))),  c = √(2/π), of each element. */
function gelu(z) {
  return z.map((v) => 0.5 * v * (1 + Math.tanh(GELU * (v + 0.044715 * v ** 3))));
}

/** p = eᶻ / Σ eᶻ of z's places begin to end, in place; returns log Σ eᶻ. */
function softmax(z, begin = 0, end = z.length) {
  let top = -Infinity, sum = 0;
  for (let i = begin; i < end; i++) top = Math.max(top, z[i]);
  for (let i = begin; i < end; i++) sum += Math.exp(z[i] - top);
  for (let i = begin; i < end; i++) z[i] = Math.exp(z[i] - top) / sum;
  return top + Math.log(sum);
}

/**
 * Each token looks at itself and at those before it, in every head:
 *     A_ij = softmax_j(q_i · k_j / √d_head),  j ≤ i;      mixed_i = Σ_j A_ij v_j
 * q [n, d], the last n of all tokens; k and v one row for each of all tokens.  A [heads, n, tokens], mixed [n, d].
 */
function attend(q, k, v, n, tokens, heads) {
  const d = q.length / n;
  const size = d / heads;
  const A = new Float32Array(heads * n * tokens), mixed = new Float32Array(n * d);
  for (let head = 0; head < heads; head++) {
    for (let i = 0; i < n; i++) {
      const row = (head * n + i) * tokens, mine = i * d + head * size, seen = tokens - n + i + 1;
      for (let j = 0; j < seen; j++) A[row + j] = inner(q, mine, k, j * d + head * size, size) / Math.sqrt(size);
      softmax(A, row, row + seen);
      for (let j = 0; j < seen; j++) addRow(mixed, mine, A[row + j], v, j * d + head * size, size);
    }
  }
  return { A, mixed };
}

/** Some columns of x [n, width] as a matrix of their own: into[start + i] = x[i, first : first + size]. */
function columns(x, n, first, size, into = new Float32Array(n * size), start = 0) {
  const width = x.length / n;
  for (let i = 0; i < n; i++) into.set(x.subarray(i * width + first, i * width + first + size), (start + i) * size);
  return into;
}

/**
 * One layer of the stack.  What it keeps, by the names of the formulas above:
 * h [n, d] what came in; x1 = ln_1(h), the input of q, k and v; q, k, v; A; mixed, the input of attn_out; m;
 * x = ln_2(m) [n, d], FF1's input; z [n, d_m], its output; a = gelu(z), FF2's input; and `after` [n, d] what goes out.
 * `past` holds the keys and values of the tokens before these, if there are any, with room for more.
 */
function runLayer(model, layer, h, n, past) {
  const { ln1, qkv, out, ln2, ff1, ff2 } = model.layers[layer];
  const d = model.width;
  const x1 = layerNorm(h, n, ln1, model.epsilon).y;
  const all = product(x1, n, qkv.W, qkv.b); // [n, 3 d]
  const start = past ? past.length : 0;
  const q = columns(all, n, 0, d);
  const k = columns(all, n, d, d, past?.layers[layer].k, start);
  const v = columns(all, n, 2 * d, d, past?.layers[layer].v, start);
  const { A, mixed } = attend(q, k, v, n, start + n, model.heads);
  const m = plus(h, product(mixed, n, out.W, out.b));
  const x = layerNorm(m, n, ln2, model.epsilon).y;
  const z = product(x, n, ff1.W, ff1.b);
  const a = gelu(z);
  const after = plus(m, product(a, n, ff2.W, ff2.b));
  return { h, x1, q, k, v, A, mixed, m, x, z, a, after };
}

/**
 * The whole stack: { ids, n, layers, top [n, d] }.  `below` = { run, layer }: an earlier run of the same ids, whose layers
 * below `layer` still hold, as when only that layer was edited.  `past` = emptyPast(model): these ids come after
 * those that it has seen.
 */
function forward(model, ids, { below, past } = {}) {
  const n = ids.length, d = model.width, start = past ? past.length : 0;
  const layers = below ? below.run.layers.slice(0, below.layer) : [];
  let h = new Float32Array(n * d);
  ids.forEach((id, i) => {
    addRow(h, i * d, 1, model.E, id * d, d);
    addRow(h, i * d, 1, model.P, (start + i) * d, d);
  });
  if (layers.length) h = layers.at(-1).after;
  for (let layer = layers.length; layer < model.layers.length; layer++) {
    layers.push(runLayer(model, layer, h, n, past));
    h = layers[layer].after;
  }
  if (past) past.length += n;
  return { ids, n, layers, top: h };
}

/** Keys and values of no tokens yet, with room for as many as the model reads. */
function emptyPast(model) {
  const room = () => new Float32Array(model.context * model.width);
  return { length: 0, layers: model.layers.map(() => ({ k: room(), v: room() })) };
}

/** logits = ln_f(h) Eᵀ [n, V] of vectors h [n, d]. */
function logitsOf(model, h, n) {
  return productTransposed(layerNorm(h, n, model.final, model.epsilon).y, n, model.E);
}

/** The row of token i of a matrix with n rows. */
function rowOf(matrix, n, i) {
  const d = matrix.length / n;
  return matrix.slice(i * d, (i + 1) * d);
}
