// What does a model say without a subnetwork, or without one layer's or one site's part of it?
//
//     W ← W ∘ (1 − m),      m the whole mask, or m in one layer, or at one site, and 0 elsewhere

/** settings: { masks: digests, k }.  A typed `prompt`, answered with and without the parts of subnetwork number `mask`. */
async function maskCase(kernel, request, settings, breathe) {
  const { model } = kernel, { mask: number } = request;
  const digest = Number.isInteger(number) ? settings.masks[number] : undefined;
  const prompt = rightStripped(asked(request, "prompt"));
  if (!digest) {
    throw new Error(`There is no subnetwork number ${shownInPython(number)}: there are ${settings.masks.length}.`);
  }
  const ids = promptIds(model, prompt);
  const masks = await openMask(kernel, digest);
  const run = runOf(kernel, ids);
  const [token] = saidBehind(kernel, ids);
  const below = { run, layer: Math.min(...layersOf(masks)) };
  const words = wordTable();
  const says = (from) => [wholeNumbers(kernel, nextWords(model, ids, [token], settings.k, from), words)];
  const before = says({ run, layer: model.layers.length });
  const after = [];
  for (const part of partsOf(masks)) {
    await breathe();
    after.push(during(removeWeights(model, part), () => says(below)));
  }
  const questions = [["typed", prompt, wordOf(kernel, token).replace(/^·/, "")]];
  return { mask: number, questions, before, after, words: words.table };
}

/** The whole, then each layer's part, then each site's. */
function partsOf(masks) {
  const ofLayers = layersOf(masks).map((layer) => masks.filter((one) => one.layer === layer));
  return [masks, ...ofLayers, ...sitesOf(masks).map((site) => masks.filter((one) => one.site === site))];
}
