// How is an edited model asked again without running it as a whole?  Only what the edit changes, only where a word is due.
//
// An edit of FF2 in layer l changes what that layer gives, z = a W + b + s (a xᵀ) δ, and the layers above.  In the last
// layer keys and values are needed of all tokens, everything else of the last `due` tokens alone.

/** The `due` last rows [due, d] at the top of the stack, where s · xᵀδ is added to FF2 of a layer of `run`. */
function topOfEdited(model, run, due, { layer, x, delta }, s) {
  const { a, after } = run.layers[layer], { n } = run, depth = model.layers.length;
  const rows = layer === depth - 1 ? due : n; // of the last layer nothing else is read
  const more = product(productTransposed(lastRows(a, n, rows), rows, x), rows, delta); // (a xᵀ) δ
  let h = lastRows(after, n, rows).map((value, i) => value + s * more[i]);
  for (let above = layer + 1; above < depth; above++) {
    h = above === depth - 1 ? lastLayer(model, h, n, due) : runLayer(model, above, h, n).after;
  }
  return h;
}

/** The last layer of h [n, d] for its last `due` tokens alone: [due, d]. */
function lastLayer(model, h, n, due) {
  const layer = model.layers.length - 1, d = model.width, before = n - due;
  const kept = { k: new Float32Array(n * d), v: new Float32Array(n * d) };
  if (before) {
    const { ln1, qkv } = model.layers[layer];
    const all = product(layerNorm(h.subarray(0, before * d), before, ln1, model.epsilon).y, before, qkv.W, qkv.b);
    columns(all, before, d, d, kept.k);
    columns(all, before, 2 * d, d, kept.v);
  }
  return runLayer(model, layer, lastRows(h, n, due), due, { length: before, layers: { [layer]: kept } }).after;
}

function lastRows(matrix, n, rows) {
  return matrix.subarray((matrix.length / n) * (n - rows));
}

/** Questions { ids, hoped } read at the tops of their runs, [hoped.length, d] each: answers as nextWords gives them. */
function answersAt(model, questions, tops, k) {
  const V = model.size, all = new Float32Array(tops.reduce((sum, top) => sum + top.length, 0));
  tops.reduce((at, top) => (all.set(top, at), at + top.length), 0);
  const p = logitsOf(model, all, all.length / model.width); // together: E is read once for all
  let begin = 0;
  return questions.map(({ hoped }) => {
    const rows = hoped.map((token) => {
      softmax(p, begin, begin + V);
      const ids = best(p, begin, begin + V, k, 1);
      const row = { ids, probabilities: ids.map((id) => p[begin + id]), own: p[begin + token], said: ids[0] === token };
      begin += V;
      return row;
    });
    return {
      ids: rows[0].ids,
      probabilities: rows[0].probabilities,
      hoped: Math.exp(rows.reduce((sum, { own }) => sum + Math.log(own) / rows.length, 0)),
      said: rows.every(({ said }) => said),
    };
  });
}
