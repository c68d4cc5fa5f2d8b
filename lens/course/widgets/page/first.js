// The landing page: a prompt and a new answer, the grid of what the gradient says, and three steps below it.
// state.lens and state.edit are those of a lens explorer (of FF2) and of an edit explorer (of one gradient step).

const PAUSE = 250; // ms without a key, after which what is typed is asked for
const SHOWN = 5; // words of either end

/** Does this text name its subject, as far as one can guess?  The last word with a capital letter, else the longest. */
function subjectOf(prompt) {
  const words = prompt.match(/[\p{L}\p{N}'’-]+/gu) || [""];
  const named = words.slice(1).filter((word) => /^\p{Lu}/u.test(word));
  return named.at(-1) || [...words].sort((a, b) => b.length - a.length)[0];
}

function render({ model, el }) {
  const { lens, edit } = model.get("state");
  const reading = (shown) => shown.readings.ff2;
  let shown = lens.cases[0]; // the prompt and what the gradient says
  let fact = edit.facts[0]; // the same, edited; null while it is not known
  let layer = edit.editors[0].own;
  let asked = null; // what was typed, when it was asked for
  let at = ""; // the layer and η that the edited model is asked at
  let timer = null;

  const status = statusLine();
  const prompt = textField({ label: "prompt" });
  const target = textField({ label: "new answer" });
  prompt.node.classList.add("wide");
  const again = () => {
    clearTimeout(timer);
    timer = setTimeout(ask, PAUSE);
  };
  for (const field of [prompt, target]) field.control.addEventListener("input", again);

  const grid = heatGrid({ label: "words that a step adds" });
  const key = h("div", {});
  const link = linkGrids([grid], (row, token) => tell(lens.layers.length - 1 - row, token));
  const pin = link.pin;
  link.pin = (row, token) => {
    pin(row, token);
    to.choose(lens.layers.length - 1 - row);
    draw();
  };

  const words = h("div", { class: "lists" });
  const where = h("p", { class: "note" });
  const to = selectField({ label: "layer", options: lens.layers.map((l, i) => [i, l]), value: lens.layers.indexOf(layer), onChange: draw });
  const eta = edit.editors[0].eta;
  const strength = sliderField({
    label: "step size η", values: edit.sizes, value: edit.sizes.findIndex((s) => s * eta >= 0.15),
    format: (s) => (s ? number(s * eta) : "0, unedited"), onChange: draw,
  });
  const answers = h("div", { "aria-live": "polite" });

  const tries = h("div", { class: "tries" }, h("span", { class: "name" }, "for example"),
    lens.cases.map((c, i) => button(`${c.prompt} → ${c.target}`, () => choose(i))));

  /** Step 1: the words of one cell; the cell that is looked at is where the gradient is read. */
  function tell(l, token) {
    const word = (i) => (shown.words || lens.words)[i];
    const list = (side, title) => wordList({ title, words: reading(shown)[side][l][token].slice(0, SHOWN).map(word), marked: word(shown.first) });
    where.replaceChildren(`Layer ${lens.layers[l]}, token `, h("span", { class: "word" }, word(shown.tokens[token])));
    words.replaceChildren(list("bottom", "a step adds"), list("top", "a step removes"));
  }

  function drawGrid() {
    const word = (i) => (shown.words || lens.words)[i];
    const { size, bottom } = reading(shown);
    const scale = heatScale(size.flat());
    const at = (row) => lens.layers.length - 1 - row; // the last layer on top
    grid.show({
      label: `words that a step adds, bottom of LL(δ), layers by tokens; Enter chooses the layer`,
      columns: shown.tokens.map(word),
      rows: lens.layers.map((_, row) => lens.layers[at(row)]),
      cell(row, token) {
        const found = bottom[at(row)][token];
        const place = `layer ${lens.layers[at(row)]}, token ${word(shown.tokens[token])}`;
        if (!found.length) return { text: "0", heat: null, faint: true, label: `${place}, no gradient` };
        return { text: word(found[0]), heat: scale.step(size[at(row)][token]), label: `${place}, adds ${word(found[0])}` };
      },
    });
    key.replaceChildren(legend(scale, "layers × tokens: the word that a step adds; color: length ‖δ‖"));
  }

  /** Step 3.  A typed fact is asked for at one layer and η at a time; what was said before stays until then. */
  function drawAnswers() {
    if (!fact) return answers.replaceChildren(h("p", { class: "note" }, "asking the edited model…"));
    const s = Number(strength.value);
    const place = edit.editors[0].layers.indexOf(lens.layers[to.value]);
    if (fact.typed && edit.sizes[s] && fact.at !== `${place} ${s}`) write(place, s);
    const known = fact.typed ? fact.after[0][0][0] : fact.after[0][place][edit.sizes.slice(0, s).filter(Boolean).length];
    const after = edit.sizes[s] ? known : fact.before;
    const aims = { efficacy: "new answer", neighborhood: "should stay" };
    answers.replaceChildren(...fact.questions.map(([measure, text, hoped], i) => answered({
      text, aim: aims[measure] || "hoped for", counts: hoped, words: fact.words,
      lines: [["before", fact.before[i]], ["after", after[i]]],
      verdict: [after[i][1], after[i][1] ? "said" : "not said"],
    })), ...[aloneNote(fact)].filter(Boolean));
  }

  /** Asks for the typed fact, written into one layer with one η; at the editor's own η where it is 0. */
  function write(place, s) {
    at = `${place} ${s}`;
    if (fact) fact.at = at;
    const size = edit.sizes[s] || 1;
    editor.ask({ to: "edit", prompt: asked.prompt, subject: subjectOf(asked.prompt), target: asked.target, layer: edit.editors[0].layers[place], eta: size * eta });
  }

  function draw() {
    const row = lens.layers.length - 1 - to.value;
    grid.mark(null, [row, shown.tokens.length - 1]);
    drawAnswers();
  }

  function open(anew) {
    drawGrid();
    if (anew) link.reset(lens.layers.length - 1 - to.value, shown.tokens.length - 1);
    draw();
  }

  function choose(i) {
    clearTimeout(timer);
    reader.forget();
    editor.forget();
    [shown, fact] = [lens.cases[i], edit.facts[i]];
    [prompt.value, target.value] = [shown.prompt, shown.target];
    status.clear();
    open(true);
  }

  const reader = asker(model, status, (answer) => {
    [shown, fact] = [answer, null];
    open(true);
    write(edit.editors[0].layers.indexOf(lens.layers[to.value]), Number(strength.value));
  }, prompt);
  const editor = asker(model, status, (answer) => {
    fact = { ...answer, typed: true, at };
    drawAnswers();
  }, prompt, () => answers.replaceChildren(h("p", { class: "note" }, "The edited model was not asked.")));
  const ask = () => {
    asked = { prompt: prompt.value, target: target.value };
    reader.ask({ to: "lens", ...asked });
  };

  const hint = h("p", { class: "note" }, "In a running notebook you can type your own.");
  const room = h("div", { "data-beside": "" }); // for the button that loads the model
  const live = () => {
    for (const { control } of [prompt, target]) control.readOnly = !model.get("live");
    hint.hidden = model.get("live") || model.get("beside");
  };
  model.on("change:live", live);
  live();

  const step = (n, title, ...children) => h("li", {}, h("p", { class: "title" }, h("span", { class: "step", "aria-hidden": "true" }, n), title), children);
  const share = linkButton(model, () => ({
    prompt: prompt.value, target: target.value, layer: lens.layers[to.value], eta: Number((edit.sizes[strength.value] * eta).toPrecision(4)),
  }), (fields) => {
    to.choose(lens.layers.indexOf(Number(fields.layer)));
    const s = edit.sizes.findIndex((size) => Math.abs(size * eta - Number(fields.eta)) < 1e-3);
    if (s >= 0) strength.set(s);
    const known = lens.cases.findIndex((c) => c.prompt === fields.prompt && c.target === fields.target);
    if (known >= 0) return choose(known);
    draw();
    if (!fields.prompt) return;
    [prompt.value, target.value] = [fields.prompt, fields.target || ""];
    onceLive(model, status, ask);
  });
  const box = frame(el, "Teach a model a new answer",
    h("div", { class: "controls line-of-life" }, prompt.node, target.node), tries, hint, room, status.node, grid.node, key,
    h("ol", { class: "steps" },
      step(1, "Read the gradient", where, words),
      step(2, "Write it", h("p", { class: "formula" }, "W ← W − η xᵀδ"), to.node, strength.node,
        h("p", { class: "note" }, "W is FF2's matrix of this layer; nothing else changes.")),
      step(3, "Ask again", answers)), share);
  choose(0);
  return () => {
    reader.dispose();
    editor.dispose();
    clearTimeout(timer);
    box.remove();
  };
}

export default { render };
