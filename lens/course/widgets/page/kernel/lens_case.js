// A prompt read by the lenses at every layer and token, as the lens explorer holds it.

const STREAM = "stream";
const MOST_TOKENS = 32;
const SPACE_LAST =
  "The prompt ends in a space, which belongs to the token of the word that comes next: leave it out, or the model is " +
  "asked for a word without its space.";

/** settings: { quantities: names, layers, k }.  A prompt and a target, as typed. */
async function lensCase(kernel, request, { quantities, layers, k }, breathe) {
  const { model } = kernel;
  const prompt = asked(request, "prompt"), typed = asked(request, "target");
  if (!stripped(prompt)) throw new Error("The prompt is empty: type at least one word.");
  const target = stripped(typed) ? typed : null;
  const start = promptIds(model, prompt), goal = target === null ? [] : targetIds(model, target);
  const sites = quantities.filter((name) => name !== STREAM);
  if (sites.length && !goal.length) {
    throw new Error("A gradient needs a target: give the word that training asks for, such as 'Paris'.");
  }
  const ids = sites.length ? [...start, ...goal.slice(0, -1)] : start;
  if (ids.length > MOST_TOKENS) {
    throw new Error(`This prompt has ${ids.length} tokens and the grid shows at most ${MOST_TOKENS}: shorten it.`);
  }
  const options = { k, token: goal[0] ?? null }, words = wordTable(), readings = {};
  const run = forward(model, ids);
  await breathe();
  const lowest = Math.min(...layers);
  const seen = sites.length ? { ...run, ...backward(model, run, teacherForced(model, start, goal).due, lowest) } : run;
  await breathe();
  for (const name of [...quantities.filter((one) => one === STREAM), ...sites]) {
    const rows = [], sizes = [];
    for (const layer of layers) {
      rows.push(...(name === STREAM
        ? asGrid(project(model, run.layers[layer].after, run.n, options), run.n)
        : backwardLens(model, seen, name, options, [layer])));
      sizes.push(sizesOf(seen, layer, name, rows.at(-1)));
      await breathe();
    }
    readings[name] = reading(kernel, rows, sizes, name === STREAM, words);
  }
  const notes = prompt.endsWith(" ") ? [SPACE_LAST] : [];
  if (goal.length > 1) {
    notes.push(`The target is ${goal.length} tokens of this model; the rank is that of the first, ${wordOf(kernel, goal[0])}.`);
  }
  const first = goal.length ? words.place(wordOf(kernel, goal[0])) : null;
  const tokens = ids.map((id) => words.place(wordOf(kernel, id)));
  return { prompt, target, first, note: notes.join(" "), tokens, readings, words: words.table };
}

/** The size of each token's vector: its length; of a site that reads from the stream, of x times that of its δ. */
function sizesOf(seen, layer, name, row) {
  const norms = row.map(({ norm }) => norm);
  if (name === STREAM || name === "ff2" || name === "attn_out") return norms;
  const { delta } = factors(seen, layer, name);
  const width = delta.length / seen.n;
  return norms.map((norm, i) => norm * Math.sqrt(inner(delta, i * width, delta, i * width, width)));
}

/** Sizes, ranks and words of [layers][tokens]; the probabilities of the top words where they are the model's own. */
function reading(kernel, rows, sizes, likely, words) {
  const each = (name) => rows.map((row) => row.map((cell) => cell[name]));
  const kept = (end) => rows.map((row) => row.map(({ norm, [end]: ids }) => (
    norm ? ids.map((id) => words.place(wordOf(kernel, id))) : []))); // a vector of length zero has no words
  return {
    size: sizes,
    rank: rows[0][0].rank === null ? null : each("rank"),
    probability: likely ? rows.map((row) => row.map(({ logits, logNormalizer }) => logits.map((z) => Math.exp(z - logNormalizer)))) : null,
    top: kept("top"),
    bottom: kept("bottom"),
  };
}
