// What does a model say without a subnetwork, without one part of it, or with one part given back?
//
//     W ← W ∘ (1 − m),      m the whole mask, or m in one layer or at one site and 0 elsewhere,
//                           or the whole mask but for one layer or one head, where it is 0

/**
 * settings: { masks: digests, asked: [[set, text, token], …] of each, k }.  A typed `prompt`, answered with and without
 * the parts of subnetwork number `mask`, all but each head last; or, with `layer`, what was asked of it before, without
 * all of it but each head of this layer.
 */
async function maskCase(kernel, request, settings, breathe) {
  const { model } = kernel, { mask: number, layer } = request;
  const digest = Number.isInteger(number) ? settings.masks[number] : undefined;
  const prompt = rightStripped(asked(request, "prompt"));
  if (!digest) {
    throw new Error(`There is no subnetwork number ${shownInPython(number)}: there are ${settings.masks.length}.`);
  }
  const byHead = "layer" in request, given = byHead ? null : promptIds(model, prompt);
  const masks = await openMask(kernel, digest);
  const known = each(masks.filter(({ site }) => site.startsWith("attn_")).map((one) => one.layer));
  if (byHead && !known.includes(layer)) {
    const has = known.join(", ") || "none";
    throw new Error(`Layer ${shownInPython(layer)} has no heads in this subnetwork; those that have: ${has}.`);
  }
  const questions = byHead ? settings.asked[number] : [["typed", prompt, saidBehind(kernel, given)[0]]];
  const runs = questions.map(([, text]) => runOf(kernel, promptIds(model, text)));
  const words = wordTable();
  const says = (from) => runs.map((run, i) => (
    wholeNumbers(kernel, nextWords(model, run.ids, [questions[i][2]], settings.k, { run, layer: from }), words)));
  const before = says(model.layers.length), lowest = Math.min(...layersOf(masks)), after = [];
  const heads = (byHead ? [layer] : known).flatMap((l) => Array.from({ length: model.heads }, (_, head) => [l, head]));
  const gone = heads.map(([l, head]) => [masks, (at, _, one) => at !== l || one !== head]);
  for (const [some, leaves] of byHead ? gone : [...partsOf(masks).map((part) => [part]), ...gone]) {
    await breathe();
    after.push(during(removeWeights(model, some, leaves), () => says(lowest)));
  }
  const shown = questions.map(([set, text, token]) => [set, text, wordOf(kernel, token).replace(/^·/, "")]);
  return { mask: number, ...(byHead && { layer }), questions: shown, before, after, words: words.table };
}

/** The whole, then each layer's part, then each site's, then, of several layers, the whole but for each layer. */
function partsOf(masks) {
  const layers = layersOf(masks);
  const ofLayers = layers.map((layer) => masks.filter((one) => one.layer === layer));
  const allBut = layers.length > 1 ? layers.map((layer) => masks.filter((one) => one.layer !== layer)) : [];
  return [masks, ...ofLayers, ...sitesOf(masks).map((site) => masks.filter((one) => one.site === site)), ...allBut];
}
