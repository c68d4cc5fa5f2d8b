// How is a fact edited, and what is left when a subnetwork is taken out?  Both overwrite weights; both can be undone.
//
//     shift             W_FF2 ← W_FF2 + η aᵀ E[t]      a: FF2's input where the target's token t is due, no backward
//     gradient step     W ← W − η xᵀδ                  of any site
//     removal           W ← W ∘ (1 − m)                m: one bit for every weight
//
// An edit is a list of changes { layer, site, x [r, d_in], delta [r, d_out], rows: r }, which says W ← W + xᵀδ.

/**
 * The shift's change: a row for each token of the target (ids) that the model does not say already; [] if it says all.
 * `seen`: the forward pass of prompt and target, where it was made before.
 */
function shift(model, prompt, target, layer, eta, seen) {
  siteWeight(model, layer, "ff2");
  const { ids, due } = teacherForced(model, prompt, target);
  const run = seen ?? forward(model, ids);
  const unsaid = due.filter(({ position, token }) => {
    const z = logitsOf(model, rowOf(run.top, run.n, position), 1);
    return best(z, 0, z.length, 1, 1)[0] !== token;
  });
  if (!unsaid.length) return [];
  const d = model.width;
  const x = stacked(unsaid.map(({ position }) => rowOf(run.layers[layer].a, run.n, position)));
  const delta = stacked(unsaid.map(({ token }) => model.E.slice(token * d, (token + 1) * d).map((e) => eta * e)));
  return [{ layer, site: "ff2", x, delta, rows: unsaid.length }];
}

/** One step of gradient descent on ℓ at some layers and sites: W ← W + xᵀ(−η δ). */
function gradientStep(model, prompt, target, layers, sites, eta) {
  layers.forEach((layer) => sites.forEach((site) => siteWeight(model, layer, site)));
  const seen = capture(model, prompt, target, Math.min(...layers));
  return layers.flatMap((layer) => sites.map((site) => {
    const { x, delta } = factors(seen, layer, site);
    return { layer, site, x, delta: delta.map((value) => -eta * value), rows: seen.n };
  }));
}

/** W ← W + strength · xᵀδ for every change; returns { undo }. */
function applyEdit(model, changes, strength = 1) {
  const places = changes.map(({ layer, site }) => siteWeight(model, layer, site));
  return overwrite(model, places.map(({ W }) => W), () => changes.forEach(({ x, delta, rows }, c) => {
    const { W, width, first, size } = places[c];
    const inputs = x.length / rows;
    for (let j = 0; j < inputs; j++) {
      const sum = new Float64Array(size); // row j of xᵀδ, added up before it is rounded
      for (let r = 0; r < rows; r++) addRow(sum, 0, strength * x[r * inputs + j], delta, r * size, size);
      addRow(W, j * width + first, 1, sum, 0, size);
    }
  }));
}

/**
 * W ← W ∘ (1 − m), returns { undo }.  `masks`: { layer, site, bits, neurons } of each masked site; bit i, counted from
 * the lowest of every byte, is weight i of [d_in, d_out], row after row; with `neurons` it is the whole input row i.
 * `gone(layer, site, head)` says which parts go, so that one can be given back; a part of the MLP has no head (null).
 */
function removeWeights(model, masks, gone = () => true) {
  const places = masks.map(({ layer, site }) => siteWeight(model, layer, site));
  const size = model.width / model.heads;
  return overwrite(model, places.map(({ W }) => W), () => masks.forEach(({ layer, site, bits, neurons }, i) => {
    const { W, width, first, size: outputs } = places[i];
    const inputs = W.length / width;
    if (bits.length !== Math.ceil((neurons ? inputs : inputs * outputs) / 8)) {
      throw new Error(`The mask of ${site} in layer ${layer} has ${bits.length} bytes, not one bit a weight.`);
    }
    const heads = site.startsWith("attn_") ? model.heads : 1;
    const leaves = Array.from({ length: heads }, (_, head) => gone(layer, site, heads > 1 ? head : null));
    for (let row = 0; row < inputs; row++) {
      for (let column = 0; column < outputs; column++) {
        const place = neurons ? row : row * outputs + column;
        // A head owns its outputs of q, k and v, and its inputs of attn_out.
        const head = heads > 1 ? Math.floor((site === "attn_out" ? row : column) / size) : 0;
        if ((bits[place >> 3] >> (place & 7)) & 1 && leaves[head]) W[row * width + first + column] = 0;
      }
    }
  }));
}

/** What `run` gives while a change lies on the model; afterwards the model is as it was, also after an error. */
function during(change, run) {
  try {
    return run();
  } finally {
    change.undo();
  }
}
