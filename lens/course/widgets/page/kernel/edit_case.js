// What do a fact's prompts say under each editor, layer and strength of an edit?  As the edit explorer holds it.
//
//     W ← W + s · ΔW,      s the strength: 1 is the editor's own edit, 0 the model as it is
//
// An edit is made once for each editor and layer; its strengths are multiples of it.

/**
 * settings: { editors: [{ name, eta, sites, layers }], sizes: strengths without 0, k, neighbors, facts, relations }, the
 * prepared facts: { text, prompt (with {} for the subject), subject, target (as Python shows it), new and true (ids),
 * questions: [[measure, text, ids hoped for]] }, and the relations: [templates, subjects].
 */
async function editCase(kernel, request, settings, breathe) {
  const fact = factAsked(kernel, request, settings);
  const { editors, sizes } = placesAsked(kernel, request, settings);
  const { model } = kernel;
  const words = wordTable();
  const answers = (tops) => answersAt(model, fact.questions, tops, settings.k);
  for (const question of fact.questions) {
    question.run = runOf(kernel, [...question.ids, ...question.hoped.slice(0, -1)]);
    await breathe();
  }
  const before = answers(fact.questions.map(({ run, hoped }) => lastRows(run.top, run.n, hoped.length)));
  const after = [], layers = [], notes = [];
  for (const editor of editors) {
    const places = [];
    layers.push([]);
    for (const layer of editor.layers) {
      const changes = editAt(kernel, fact, editor, layer);
      const strengths = [];
      for (const s of sizes) {
        const tops = [];
        for (const { run, hoped } of fact.questions) {
          tops.push(topWith(model, changes, s, run, hoped.length));
          await breathe();
        }
        strengths.push(answers(tops));
      }
      places.push(strengths);
      layers.at(-1).push([...new Set(changes.map((change) => change.layer))]);
    }
    after.push(places);
    notes.push(layers.at(-1).some((changed) => !changed.length)
      ? `The model says ${fact.target} already, so nothing is changed.` : null);
  }
  const numbers = (answers) => answers.map((one) => wholeNumbers(kernel, one, words));
  const found = { before: numbers(before), after: after.map((places) => places.map((some) => some.map(numbers))) };
  return {
    prompt: fact.text,
    subject: fact.subject,
    new: spoken(kernel, fact.own),
    true: spoken(kernel, fact.true),
    questions: fact.questions.map(({ measure, text, hoped }) => [measure, text, spoken(kernel, hoped)]),
    words: words.table,
    ...found,
    layers,
    notes,
  };
}

/** The fact and what is asked: { text, subject, target, own, true, run, questions: [{ measure, text, ids, hoped }] }. */
function factAsked(kernel, request, { facts, neighbors, relations }) {
  const { model } = kernel;
  const question = (measure, text, hoped) => {
    const ids = promptIds(model, text);
    fitting(model, [...ids, ...hoped.slice(0, -1)]);
    return { measure, text, ids, hoped };
  };
  let fact;
  if ("fact" in request) {
    const known = Number.isInteger(request.fact) ? facts[request.fact] : undefined;
    if (!known) throw new Error(`There is no fact number ${shownInPython(request.fact)}: there are ${facts.length}.`);
    fact = { ...known, own: known.new, questions: known.questions.map((q) => question(...q)) };
  } else {
    fact = editRequest(...["prompt", "subject", "target"].map((name) => asked(request, name)));
    fact.own = targetIds(model, fact.target);
    fact.questions = [question("efficacy", fact.text, fact.own)];
    fact.true = saidBehind(kernel, fact.questions[0].ids);
    fact.target = quoted(fact.target);
    const near = new Map();
    for (const one of facts) {
      if (one.prompt === fact.prompt && one.subject !== fact.subject) near.set(one.text, one.true);
    }
    for (const text of siblings(fact.text, relations)) {
      if (!near.has(text)) near.set(text, saidBehind(kernel, promptIds(model, text)));
    }
    const kept = [...near].filter(([, hoped]) => hoped[0] !== fact.own[0]).slice(0, neighbors);
    fact.questions.push(...kept.map(([text, hoped]) => question("neighborhood", text, hoped)));
  }
  fact.ids = fact.questions[0].ids;
  fact.run = runOf(kernel, [...fact.ids, ...fact.own.slice(0, -1)]);
  if ("free" in request) {
    const free = rightStripped(asked(request, "free"));
    if (!free) throw new Error("The prompt is empty: type at least one word.");
    fact.questions = [question("free", free, fact.own)];
  }
  return fact;
}

/** Every editor at every layer and strength; with `layer` and `eta` one of them, there and with this η. */
function placesAsked({ model }, request, { editors, sizes }) {
  if (!("layer" in request) && !("eta" in request)) return { editors, sizes };
  const { editor: number = 0, layer, eta } = request;
  const editor = Number.isInteger(number) ? editors[number] : undefined;
  if (!editor) throw new Error(`There is no editor number ${shownInPython(number)}: there are ${editors.length}.`);
  if (!Number.isInteger(layer)) throw new Error(`The layer is ${shownInPython(layer)}: give a whole number, such as 7.`);
  if (typeof eta !== "number") throw new Error(`The step size η is ${shownInPython(eta)}: give a number, such as 0.5.`);
  const depth = model.layers.length, place = layer < 0 && layer >= -depth ? layer + depth : layer;
  siteWeight(model, place, "ff2");
  return { editors: [{ ...editor, eta, layers: [place] }], sizes: [1] };
}

/** The changes that an editor makes in a layer. */
function editAt({ model }, { ids, own, run }, { name, eta, sites }, layer) {
  return name === "shift" ? shift(model, ids, own, layer, eta, run) : gradientStep(model, ids, own, [layer], sites, eta);
}

/** The `due` last rows at the top of the stack while the changes lie on the model, s times. */
function topWith(model, changes, s, run, due) {
  const { n, ids } = run;
  if (!changes.length) return lastRows(run.top, n, due);
  const [{ layer, site }] = changes;
  if (changes.length === 1 && site === "ff2") return topOfEdited(model, run, due, changes[0], s);
  return during(applyEdit(model, changes, s), () => lastRows(forward(model, ids, { below: { run, layer } }).top, n, due));
}
