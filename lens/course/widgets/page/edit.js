// The edit explorer: what the model answers before and after an edit, at a layer and a strength that the reader chooses.
// state.facts[i].after[editor][place][strength but 0][question] is an answer, as parts.js describes it.

const BLOCKS = {
  efficacy: ["The edited prompt", "prompt"],
  paraphrase: ["The same fact in other words", "paraphrases"],
  neighborhood: ["Neighbors, which should stay as they are", "neighbors"],
};

function render({ model, el }) {
  const state = model.get("state");
  const facts = state.facts.map((f, i) => ({ ...f, ask: { fact: i }, tried: [] }));
  const strengths = state.sizes;
  const status = statusLine();
  const editorOf = () => state.editors[editor.value];
  const sizeText = (s) => (editorOf().eta === null ? `${number(s)} × the editor's own`
    : `η = ${number(s * editorOf().eta)}`) + (s === 0 ? " (unedited)" : "");
  const whole = strengths.indexOf(1);

  const fact = selectField({ label: "fact", onChange: () => draw() });
  fact.node.classList.add("wide");
  const editor = selectField({ label: "editor", options: state.editors.map((e, i) => [i, e.name]), value: 0, onChange: choose });
  editor.node.hidden = state.editors.length < 2;
  const layer = selectField({ label: "layer", onChange: () => draw() });
  const strength = sliderField({
    label: "strength of the edit", values: strengths, value: whole < 0 ? strengths.length - 1 : whole, format: (s) => sizeText(s), onChange: () => draw(),
  });

  const map = heatGrid({ label: "prompts answered as hoped", corner: "" });
  map.on = {
    look: () => {},
    pin(row, column) {
      layer.value = layers().length - 1 - row;
      strength.value = column;
      strength.control.dispatchEvent(new Event("input"));
    },
  };
  const key = h("div", {});
  const overview = h("div", { class: "overview" }, map.node, key);
  const verdict = h("p", { class: "verdict", "aria-live": "polite" });
  const first = h("div", {}); // of the edited prompt: beside the slider that changes it
  const blocks = h("div", {});

  /** A place's layer, or where the editor's own settings put this fact. */
  const layers = () => editorOf().layers;
  const place = (i) => layers()[i] ?? `${facts[fact.value].layers[editor.value][i].join(", ") || "none"} (its own)`;
  const answersAt = (i, s, shown = facts[fact.value]) => {
    if (strengths[s] === 0) return shown.before;
    return shown.after[editor.value][i][strengths.slice(0, s).filter(Boolean).length];
  };
  const hopes = (answers) => answers.filter((answer) => answer[1]).length;

  function choose() {
    layer.setOptions(layers().map((_, i) => [i, place(i)]).reverse());
    layer.value = Math.max(0, layers().indexOf(editorOf().own));
    strength.control.dispatchEvent(new Event("input"));
  }

  function drawMap() {
    overview.hidden = layers().length < 2;
    if (overview.hidden) return;
    const { questions } = facts[fact.value];
    const near = questions.map((q) => q[0] === "neighborhood");
    const scale = heatScale([0, 1], { log: false });
    const sides = [["told", false], ["kept", true]].filter(([, is]) => near.includes(is));
    const share = (answers, is) => [hopes(answers.filter((_, i) => near[i] === is)), near.filter((one) => one === is).length];
    const rows = layers().map((_, i) => i).reverse();
    map.show({
      label: "prompts answered as hoped, layers by strengths; Enter chooses a cell",
      columns: strengths.map((s) => (editorOf().eta === null ? `${number(s)} ×` : number(s * editorOf().eta))),
      rows: rows.map(place),
      cell(r, s) {
        const found = sides.map(([side, is]) => [side, ...share(answersAt(rows[r], s), is)]);
        return {
          halves: found.map(([, n, all]) => ({ text: n, heat: scale.step(n / all) })),
          label: `layer ${place(rows[r])}, ${sizeText(strengths[s])}: ${found.map(([side, n, all]) => `${side} ${n} of ${all}`).join(", ")}`,
        };
      },
    });
    map.mark(null, [rows.indexOf(Number(layer.value)), Number(strength.value)]);
    const axes = `layers × ${editorOf().eta === null ? "strength" : "η"}`;
    const kept = share([], true)[1];
    const of = `left: prompts that say the new answer, of ${near.length - kept}${kept ? `; right: neighbors kept, of ${kept}` : ""}`;
    key.replaceChildren(legend(scale, `${axes}; ${of}`, (v) => (v ? "all" : "none")));
  }

  function draw() {
    const shown = facts[fact.value];
    layer.setOptions(layers().map((_, i) => [i, place(i)]).reverse());
    status.say(shown.notes[editor.value] || "");
    drawMap();
    const after = answersAt(layer.value, Number(strength.value));
    const named = Object.entries(BLOCKS).map(([measure, [title, short]]) => ({
      title, short, rows: shown.questions.flatMap((q, i) => (q[0] === measure ? [i] : [])),
    })).filter(({ rows }) => rows.length);
    verdict.replaceChildren(h("span", { class: "name" }, "answered as hoped"), ...named.map(({ short, rows }) => h("span", {},
      `${short} `, h("b", {}, `${hopes(rows.map((i) => after[i]))} of ${rows.length}`))),
      ...[aloneNote(shown)].filter(Boolean));
    const tried = shown.tried.map((one) => ({ one, after: answersAt(layer.value, Number(strength.value), one) }));
    const mine = tried.length && h("div", { class: "block" }, h("p", { class: "title" }, "Your prompt"), tried.map(({ one, after }) => answered({
      text: one.questions[0][1],
      aim: "new answer",
      counts: one.new,
      words: one.words,
      lines: [["before", one.before[0]], ["after", after[0]]],
    })));
    const all = named.map(({ title, rows }) => h("div", { class: "block" }, h("p", { class: "title" }, title),
      rows.map((i) => answered({
        text: shown.questions[i][1],
        aim: "hoped for",
        counts: shown.questions[i][2],
        words: shown.words,
        lines: [["before", shown.before[i]], ["after", after[i]]],
        verdict: [after[i][1], after[i][1] ? "said" : "not said"],
      }))));
    first.replaceChildren(...all.slice(0, 1));
    blocks.replaceChildren(...[mine].filter(Boolean), ...all.slice(1));
  }

  function list(chosen) {
    fact.setOptions(facts.map((f, i) => [i, `${f.prompt} ${f.true} → ${f.new}`]));
    fact.value = chosen;
  }

  let asking = null; // a new fact, or the fact whose edited model is tried
  const kernel = asker(model, status, (answer) => {
    if (asking.tried) asking.tried.unshift(answer);
    else {
      facts.push({ ...answer, ask: asking, tried: [] });
      list(facts.length - 1);
    }
    draw();
  });
  const ask = () => {
    asking = { prompt: prompt.value, subject: subject.value, target: target.value };
    kernel.ask(asking);
  };
  const tryOut = () => {
    asking = facts[fact.value];
    kernel.ask({ ...asking.ask, free: free.value });
  };
  const prompt = textField({ label: "your prompt", placeholder: "The capital of France is", onEnter: ask });
  const subject = textField({ label: "its subject", placeholder: "France", onEnter: ask });
  const target = textField({ label: "new answer", placeholder: "Rome", onEnter: ask });
  const free = textField({ label: "try the edited model on", placeholder: "The capital of Spain is", onEnter: tryOut });
  for (const field of [prompt, free]) field.node.classList.add("wide");
  const anything = ownForm(model, null, free.node, button("Ask", tryOut));
  const own = ownForm(model, "fact", prompt.node, subject.node, target.node, button("Edit", ask));
  const share = linkButton(model, () => {
    const shown = facts[fact.value];
    const eta = strengths[strength.value] * (editorOf().eta ?? 1);
    return { prompt: shown.prompt, subject: shown.subject, target: shown.new, editor: editorOf().name, layer: layers()[layer.value], eta: Number(eta.toPrecision(4)) };
  }, (fields) => {
    if (editor.choose(state.editors.findIndex((e) => e.name === fields.editor))) choose();
    layer.choose(layers().indexOf(Number(fields.layer)));
    const wanted = Number(fields.eta) / (editorOf().eta ?? 1);
    const nearest = strengths.reduce((best, s, i) => (Math.abs(s - wanted) < Math.abs(strengths[best] - wanted) ? i : best), 0);
    if (fields.eta && Number.isFinite(wanted)) strength.set(nearest);
    const known = facts.findIndex((f) => f.prompt === fields.prompt && f.new === fields.target);
    if (known >= 0) fact.value = known;
    draw();
    if (known >= 0 || !fields.prompt) return;
    [prompt.value, subject.value, target.value] = [fields.prompt, fields.subject || "", fields.target || ""];
    onceLive(model, status, ask);
  });

  list(0);
  const box = frame(el, "Edit explorer: answers before and after an edit",
    own, h("div", { "data-beside": "" }), status.node, h("div", { class: "controls" }, fact.node, editor.node, layer.node, strength.node),
    verdict, first, overview, anything, blocks, share);
  choose();
  return () => {
    kernel.dispose();
    box.remove();
  };
}

export default { render };
