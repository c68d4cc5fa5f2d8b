// The lens explorer: layers × tokens, a word in every cell.  state.cases[i].readings[quantity] holds what was read.

const OTHER = { top: "bottom", bottom: "top" };

function percent(p) {
  return p < 0.0001 ? "<0.01 %" : `${number(Number((100 * p).toPrecision(2)))} %`;
}

/** One grid with its own choice of quantity and end, and the words of the cell that is looked at. */
function lensPanel(state, place, onChange) {
  let quantity = state.quantities[place];
  const several = state.quantities.length > 2;
  const choice = selectField({
    label: "module",
    options: state.quantities.map((q) => [q.name, q.label]),
    value: quantity.name,
    onChange(name) {
      quantity = state.quantities.find((q) => q.name === name);
      end.setOptions([["top", quantity.ends.top], ["bottom", quantity.ends.bottom]]);
      end.value = quantity.end;
      onChange();
    },
  });
  const ends = () => [["top", quantity.ends.top], ["bottom", quantity.ends.bottom]];
  const end = selectField({ label: "words", options: ends(), value: quantity.end, onChange });
  const grid = heatGrid({ label: quantity.label, corner: "" });
  const key = h("div", {});
  const details = h("div", { class: "details", "aria-live": "polite" });
  const node = h("div", { class: "panel" },
    h("div", { class: "controls" }, several ? choice.node : h("p", { class: "title heading" }, quantity.label), end.node), grid.node, key, details);

  /** What the view shows, given the case and the settings that all panels share. */
  function draw(shown, { layer, color }) {
    const reading = shown.readings[quantity.name];
    const word = (i) => (shown.words || state.words)[i];
    const tokens = shown.tokens.map(word);
    const first = shown.first === null ? null : word(shown.first);
    const rank = (l, t) => (end.value === "top" ? reading.rank[l][t] : state.last - reading.rank[l][t]);
    const from = `from the ${end.value}`;

    const ranked = color === "rank" && reading.rank;
    const scale = ranked
      ? { low: state.last, high: 0, log: true, step: (r) => Math.round((1 - Math.log1p(r) / Math.log1p(state.last)) * (STEPS - 1)) }
      : heatScale(reading.size.flat());
    const heat = (l, t) => scale.step(ranked ? rank(l, t) : reading.size[l][t]);
    const said = (l, t) => [`${quantity.measure} ${number(reading.size[l][t])}`,
      reading.rank && `rank of ${first} ${from}: ${number(rank(l, t))} of ${number(state.last)}`].filter(Boolean).join(", ");

    const one = layer === "all" ? null : state.layers.indexOf(Number(layer));
    const rows = one === null ? state.layers.map((_, i) => state.layers.length - 1 - i) : null; // the last layer on top
    const k = Math.max(1, ...reading.top.flat().map((words) => words.length));
    const at = (row) => (one === null ? rows[row] : one);
    const cell = (row, t) => {
      const l = at(row);
      const found = reading[end.value][l][t];
      const where = `layer ${state.layers[l]}, token ${tokens[t]}`;
      if (!found.length) return { text: "0", heat: null, faint: true, label: `${where}, a vector of length zero, no words` };
      const text = word(found[one === null ? 0 : row]);
      const place = one === null ? `${end.value} word ${text}` : `word ${row + 1} ${from}: ${text}`;
      return { text, heat: heat(l, t), label: `${where}, ${place}, ${said(l, t)}` };
    };
    grid.show({
      label: `${quantity.label}, ${quantity.ends[end.value]}, ${one === null ? "layers" : "words"} by tokens`,
      columns: tokens,
      rows: rows ? rows.map((l) => state.layers[l]) : Array.from({ length: k }, (_, i) => i + 1),
      cell,
    });
    key.replaceChildren(legend(scale, ranked ? `rank of ${first} ${from}` : quantity.measure));

    return function tell(row, t, pinned) {
      const l = at(row);
      const found = reading[end.value][l][t];
      const list = (side) => wordList({
        title: quantity.ends[side],
        words: reading[side][l][t].map(word),
        values: side === "top" && reading.probability ? reading.probability[l][t].map(percent) : null,
        marked: first,
      });
      details.replaceChildren(
        h("p", { class: "where" }, h("span", { class: "title" }, `layer ${state.layers[l]}, token `,
          h("span", { class: "word" }, tokens[t])), pinned && h("span", { class: "name" }, "  pinned, Esc to let go")),
        h("p", { class: "note" }, said(l, t)),
        found.length ? h("div", { class: "lists" }, list(end.value), list(OTHER[end.value]))
          : h("p", { class: "note" }, "This vector has length zero: it has no words."));
    };
  }
  return { node, grid, draw };
}

function render({ model, el }) {
  const state = model.get("state");
  const cases = [...state.cases];
  const caseName = (c) => (c.target ? `${c.prompt} → ${c.target}` : c.prompt);
  const status = statusLine();
  const prompt = selectField({ label: "prompt", onChange: () => draw(true) });
  const layer = selectField({
    label: "layers",
    options: [["all", "all layers"], ...state.layers.map((l) => [l, `only layer ${l}`]).reverse()],
    onChange: () => draw(true),
  });
  const color = selectField({
    label: "color",
    options: [["size", "size of the vector"], ["rank", "rank of the target"]],
    value: state.color,
    onChange: () => draw(false),
  });
  prompt.node.classList.add("wide");
  const panels = state.quantities.slice(0, 2).map((_, place) => lensPanel(state, place, () => draw(false)));
  let tell = [];
  const link = linkGrids(panels.map((p) => p.grid), (...spot) => tell.forEach((f) => f(...spot)));

  function draw(anew) {
    const shown = cases[prompt.value];
    color.node.hidden = shown.first === null;
    tell = panels.map((panel) => panel.draw(shown, { layer: layer.value, color: color.value }));
    panels.forEach((p) => p.node.style.setProperty("--wanted", `calc(${shown.tokens.length} * 3.4rem + 1.8rem)`));
    status.say(shown.note);
    if (anew) link.reset(0, shown.tokens.length - 1);
    else link.refresh();
  }

  function list(chosen) {
    prompt.setOptions(cases.map((c, i) => [i, caseName(c)]));
    prompt.value = chosen;
  }

  const kernel = asker(model, status, (answered) => {
    cases.push(answered);
    list(cases.length - 1);
    draw(true);
  });
  const ask = () => kernel.ask({ prompt: typed.value, target: target.value });
  const typed = textField({ label: "your prompt", placeholder: "The capital of France is", onEnter: ask });
  const target = textField({ label: state.target ? "target" : "target (optional)", placeholder: "Paris", onEnter: ask });
  typed.node.classList.add("wide");
  const own = ownForm(model, "prompt and target", typed.node, target.node, button("Read", ask));
  const share = linkButton(model, () => {
    const shown = cases[prompt.value];
    return { prompt: shown.prompt, target: shown.target, layer: layer.value, color: color.value };
  }, (fields) => {
    layer.choose(fields.layer);
    color.choose(fields.color);
    const goal = fields.target || "";
    const known = cases.findIndex((c) => c.prompt === fields.prompt && (c.target || "") === goal);
    if (known >= 0) prompt.value = known;
    draw(true);
    if (known >= 0 || !fields.prompt) return;
    [typed.value, target.value] = [fields.prompt, goal];
    onceLive(model, status, ask);
  });

  list(0);
  const box = frame(el, `Lens explorer: ${state.quantities.map((q) => q.label).join(", ")}`,
    h("div", { class: "controls" }, prompt.node, layer.node, color.node), own, status.node,
    h("div", { class: "panels" }, panels.map((p) => p.node)), share);
  draw(true);
  return () => {
    kernel.dispose();
    box.remove();
  };
}

export default { render };
