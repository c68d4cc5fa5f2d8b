// How does a case hold words and answers?  Each word once, in a table; an answer as whole numbers.
//
// An answer: [p of the words hoped for, 1 if they are said, place of a word, its p, …], p in 1/10 000.

const UNIT = 10000;

/** word(id) for every id of a model, each made once. */
function wordOf({ model, words }, id) {
  if (!words.has(id)) words.set(id, model.tokenizer.word(id));
  return words.get(id);
}

/** A table of words: place(word) gives the place of a word, `table` holds every word that was asked for, in order. */
function wordTable() {
  const places = new Map();
  const place = (word) => {
    if (!places.has(word)) places.set(word, places.size);
    return places.get(word);
  };
  return { place, get table() { return [...places.keys()]; } };
}

/** What nextWords gave, as whole numbers. */
function wholeNumbers(kernel, { ids, probabilities, hoped, said }, words) {
  const pairs = ids.flatMap((id, i) => [words.place(wordOf(kernel, id)), Math.round(UNIT * probabilities[i])]);
  return [Math.round(UNIT * hoped), Number(said), ...pairs];
}

/** A target as people read it: its letters together, without the space before it. */
function spoken(kernel, ids) {
  if (ids.length === 1) return wordOf(kernel, ids[0]).replace(/^·/, "");
  return kernel.model.tokenizer.decode(ids, true).replace(/^ /, "").replaceAll(" ", "·");
}

const TOKENS_KEPT = 300; // of the prompts that were asked last: about 4 kB a token and layer

/** The unedited model's run of these ids, as far as edits and removals need it: { ids, n, layers: [{ a, after }], top }. */
function runOf(kernel, ids) {
  const key = ids.join(" ");
  const run = kernel.runs.get(key) ?? forward(kernel.model, ids);
  run.layers = run.layers.map(({ a, after }) => ({ a, after }));
  kernel.runs.delete(key);
  kernel.runs.set(key, run);
  let tokens = 0;
  for (const [other, { n }] of [...kernel.runs].reverse()) {
    tokens += n;
    if (tokens > TOKENS_KEPT && other !== key) kernel.runs.delete(other);
  }
  return run;
}

/** The word that the unedited model says behind a prompt: [id]. */
function saidBehind(kernel, ids) {
  const { top, n } = runOf(kernel, ids), z = logitsOf(kernel.model, lastRows(top, n, 1), 1);
  return best(z, 0, z.length, 1, 1);
}
