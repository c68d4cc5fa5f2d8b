// Which words does a vector stand for?  LL(v) = softmax(ln_f(v) Eᵀ), read from both ends of the logits.
//
// Training subtracts δ: the words that a step adds are the bottom of LL(δ).  The rank of a token is the number of tokens
// with a strictly larger logit: 0 is the top, V − 1 the bottom; tokens that tie do not count each other.

const CHUNK = 32; // vectors whose logits are held at a time: they stay in the processor's cache

/** The k best of z[begin : end], best first, of equal ones the first: their places from `begin` on. */
function best(z, begin, end, k, sign) {
  const ids = [];
  let least = -Infinity; // the worst of the k so far
  for (let i = begin; i < end; i++) {
    if (ids.length === k && !(sign * z[i] > least)) continue;
    let place = ids.length;
    while (place && sign * z[begin + ids[place - 1]] < sign * z[i]) place--;
    ids.splice(place, 0, i - begin);
    if (ids.length > k) ids.pop();
    least = sign * z[begin + ids.at(-1)];
  }
  return ids;
}

/**
 * N vectors [N, d] as words: for each { top, bottom, logits, logNormalizer, rank, norm }.
 * top and bottom: ids of the k largest and of the k smallest logits, the nearest to the end first; logits: of the top;
 * logNormalizer = log Σ eᶻ; rank: of `token`, null where none is given; norm = ‖v‖.
 */
function project(model, vectors, N, { k = 10, token = null } = {}) {
  const d = model.width, V = model.size, found = [];
  for (let first = 0; first < N; first += CHUNK) {
    const n = Math.min(CHUNK, N - first);
    const some = vectors.subarray(first * d, (first + n) * d);
    const z = logitsOf(model, some, n); // [n, V]
    for (let i = 0; i < n; i++) {
      const norm = Math.sqrt(inner(some, i * d, some, i * d, d));
      found.push({ ...readRow(z, i * V, V, k, token), norm });
    }
  }
  return found;
}

function readRow(z, begin, V, k, token) {
  const end = begin + V;
  const top = best(z, begin, end, k, 1);
  const most = z[begin + top[0]], own = token === null ? null : z[begin + token];
  let larger = 0, sum = 0;
  for (let i = begin; i < end; i++) {
    if (z[i] > own) larger++;
    sum += Math.exp(z[i] - most);
  }
  return {
    top,
    bottom: best(z, begin, end, k, -1),
    logits: top.map((id) => z[begin + id]),
    logNormalizer: most + Math.log(sum),
    rank: token === null ? null : larger,
  };
}

/** `rows` readings in a row as a grid: grid[layer][token]. */
function asGrid(readings, n) {
  return Array.from({ length: readings.length / n }, (_, layer) => readings.slice(layer * n, (layer + 1) * n));
}

/** Matrices [n, d], one for every layer, one below the other. */
function stacked(matrices) {
  const all = new Float32Array(matrices.length * matrices[0].length);
  matrices.forEach((matrix, i) => all.set(matrix, i * matrix.length));
  return all;
}

/** The residual stream after every layer, read as words: grid[layer][token].  Its last row is the model's output. */
function logitLens(model, run, options) {
  const streams = run.layers.map(({ after }) => after);
  return asGrid(project(model, stacked(streams), streams.length * run.n, options), run.n);
}

/**
 * What spans a site's gradient xᵀδ, read as words: grid[layer][token] of readings, of all layers or of some.
 * A site that reads from the stream (ff1, attn_q …): its inputs x, the imprint.  One that writes to it (ff2, attn_out):
 * its δ, the shift, which a step subtracts.  `seen` is what capture gave.
 */
function backwardLens(model, seen, site, options, layers = seen.layers.map((_, layer) => layer)) {
  const vector = site === "ff2" || site === "attn_out" ? "delta" : "x";
  const vectors = layers.map((layer) => factors(seen, layer, site)[vector]);
  return asGrid(project(model, stacked(vectors), layers.length * seen.n, options), seen.n);
}
