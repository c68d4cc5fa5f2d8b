// What does a model say without what subnetworks share, or without what only one of them has?
//
//     W ← W ∘ (1 − m),      m a region of the Venn diagram, one of the subnetworks, or all of them together

/** A typed `prompt`, answered with and without each region of `some`, opened masks; k words behind it. */
async function regionCase(kernel, prompt, some, k, breathe) {
  const { model } = kernel;
  const run = runOf(kernel, promptIds(model, prompt)), [token] = saidBehind(kernel, run.ids);
  const words = wordTable(), after = [];
  const says = (layer) => [wholeNumbers(kernel, nextWords(model, run.ids, [token], k, { run, layer }), words)];
  const before = says(model.layers.length), lowest = Math.min(...layersOf(some[0]));
  for (const masks of removalsOf(some)) {
    await breathe();
    after.push(during(removeWeights(model, masks), () => says(lowest)));
  }
  return { questions: [["typed", prompt, wordOf(kernel, token).replace(/^·/, "")]], before, after, words: words.table };
}

/** Of n subnetworks the 2ⁿ − 1 regions in the order of their bits from 1, then each as a whole, then their union. */
function* removalsOf(some) {
  const made = (byte) => some[0].map((module, place) => {
    const { neurons, packed } = sameUnits(some.map((masks) => masks[place]));
    return { ...module, neurons, bits: packed[0].map((_, at) => byte(packed.map((one) => one[at]))) };
  });
  for (let inside = 1; inside < 1 << some.length; inside++) {
    yield made((bytes) => bytes.reduce((left, one, i) => left & ((inside >> i) & 1 ? one : ~one), 255));
  }
  yield* some;
  yield made((bytes) => bytes.reduce((left, one) => left | one, 0));
}
