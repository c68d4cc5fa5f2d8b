// The mask explorer: where a subnetwork lies, and what the model says without it, without a part, or with a part back.
// state.masks[i].after[part][question]: the parts are the whole, each layer's, each site's, in the order of their lists,
// then the whole but for each layer.  Whoever answers also knows the whole but for each head.

const SETS = {
  typed: { title: "Your prompt", aim: "said before" },
  target: { title: "Facts to forget", aim: "to forget", forget: true },
  unseen: { title: "The same facts, in words that the mask never saw", aim: "to forget", forget: true },
  control_held_out: { title: "Other facts, to keep", aim: "to keep" },
  text_held_out: { title: "Ordinary text, to keep", aim: "to keep" },
};

function render({ model, el }) {
  const state = model.get("state");
  const masks = state.masks;
  const typedCases = masks.map(() => []);
  const byHead = masks.map(() => ({})); // layer → the prepared prompts' answers with each of its heads given back
  const status = statusLine();
  const groups = [...new Set(masks.map((m) => m.group))];
  const of = (name) => masks.flatMap((m, i) => (m.group === name ? [i] : []));
  const percent = (share) => `${number(100 * share)} %`;

  const group = selectField({ label: "facts to forget", options: groups, onChange: choose });
  const seed = selectField({ label: "found with", onChange: () => draw() });
  seed.node.hidden = masks.every((m) => !m.label);
  const part = selectField({ label: "remove", onChange: () => draw() });

  const grid = heatGrid({ label: "density", corner: "" });
  const key = h("div", {});
  const total = h("p", { class: "verdict" });
  const details = h("div", { class: "details short", "aria-live": "polite" });
  const link = linkGrids([grid], tell);
  const pin = link.pin;
  link.pin = (row, column) => {
    const { layers, sites } = shown();
    const [layer, site] = at(row, column);
    if (layer < 0 || site < 0) { // a sum: its part of the mask is removed
      part.value = layer < 0 && site < 0 ? 0 : site < 0 ? 1 + layer : 1 + layers.length + site;
      draw();
      link.look(row, column);
    } else pin(row, column);
  };
  const verdict = h("p", { class: "verdict", "aria-live": "polite" });
  const blocks = h("div", {});

  const shown = () => masks[seed.value];
  /** Places in the lists of layers and sites of a cell; −1 in the row and the column of sums. */
  const at = (row, column) => {
    const { layers, sites } = shown();
    return [row < layers.length ? layers.length - 1 - row : -1, column < sites.length ? column : -1];
  };
  const density = (layer, site) => {
    const m = shown();
    if (layer < 0 && site < 0) return m.density;
    return site < 0 ? m.by_layer[layer] : layer < 0 ? m.by_site[site] : m.modules[layer][site];
  };
  const placeName = (layer, site) => {
    const { layers, sites } = shown();
    return `${layer < 0 ? "all layers" : `layer ${layers[layer]}`}, ${site < 0 ? "all sites" : sites[site]}`;
  };

  function tell(row, column, pinned) {
    const [layer, site] = at(row, column);
    const heads = layer < 0 || site < 0 ? null : shown().heads[layer][site];
    const share = density(layer, site);
    const most = Math.max(...shown().heads.flat(2).filter(Boolean));
    details.replaceChildren(
      h("p", { class: "where" }, h("span", { class: "title" }, placeName(layer, site)),
        share !== null && ` ${percent(share)} of its weights`, pinned && h("span", { class: "name" }, "  pinned, Esc to let go")),
      heads ? h("ul", { class: "heads" }, heads.map((share, i) => h("li", {}, h("span", {}, `head ${i}`), track(share / most), percent(share))))
        : h("p", { class: "note" }, layer < 0 || site < 0 ? "Enter or a click removes this part." : "No heads: they belong to attention."));
  }

  function drawGrid() {
    const m = shown();
    const scale = heatScale(m.modules.flat().filter((v) => v !== null), { low: 0, log: false });
    const rows = [...[...m.layers].reverse(), "all"];
    grid.show({
      label: "density of the subnetwork, layers by sites",
      columns: [...m.sites, "all"],
      rows,
      cell(row, column) {
        const [layer, site] = at(row, column);
        const share = density(layer, site);
        const sum = layer < 0 || site < 0;
        return { text: share === null ? "–" : (100 * share).toFixed(share < 0.1 ? 2 : 1), heat: sum ? null : scale.step(share), faint: sum || share === null,
          label: `${placeName(layer, site)}: ${share === null ? "not masked" : percent(share)}` };
      },
    });
    key.replaceChildren(legend(scale, "layers × sites: weights in the subnetwork, in %", percent));
    const [inside, all] = m.weights;
    total.replaceChildren(h("span", {}, "density ", h("b", {}, percent(inside / all))), h("span", {}, "sparsity ", h("b", {}, percent(1 - inside / all))),
      h("span", { class: "name" }, `${inside.toLocaleString("en-US")} of ${all.toLocaleString("en-US")} weights`));
    link.refresh();
  }

  /** [text, layer and head that come back] of every part that can be removed. */
  function partsOf(m) {
    const several = m.layers.length > 1 ? m.layers : [];
    const heads = m.layers.flatMap((layer, i) => (
      Array.from({ length: Math.max(0, ...m.heads[i].map((some) => (some ? some.length : 0))) }, (_, head) => [layer, head])));
    return [["the whole subnetwork"], ...m.layers.map((l) => [`only its part in layer ${l}`]),
      ...m.sites.map((s) => [`only its part in ${s}`]), ...several.map((l) => [`all but its part in layer ${l}`]),
      ...(model.get("live") ? heads.map(([l, head]) => [`all but head ${head} of layer ${l}`, l, head]) : [])];
  }

  /** The prepared prompts' answers without a part; those by head are asked for, and nothing is known until then. */
  function prepared(m, [, layer, head]) {
    if (layer === undefined) return [m];
    const found = byHead[seed.value][layer];
    if (!found) kernel.ask({ mask: Number(seed.value), layer });
    return found ? [{ ...found, after: { [part.value]: found.after[head] } }] : [];
  }

  function draw() {
    const m = shown(), parts = partsOf(m);
    part.setOptions(parts.map(([text], i) => [i, text]));
    drawGrid();
    const sources = [...typedCases[seed.value], ...prepared(m, parts[part.value])];
    const rows = sources.flatMap((s) => s.questions.map(([set, text, word], i) => (
      { set, text, word, words: s.words, before: s.before[i], after: s.after[part.value][i] })));
    const good = ({ set, after }) => (set === "typed" ? null : Boolean(after[1]) !== Boolean(SETS[set].forget));
    const said = (row) => (SETS[row.set].forget ? (good(row) ? "forgotten" : "still said") : good(row) ? "still said" : "lost");
    const count = (forget, name) => {
      const some = rows.filter((row) => row.set !== "typed" && Boolean(SETS[row.set].forget) === forget);
      return h("span", {}, `${name} `, h("b", {}, `${some.filter(good).length} of ${some.length}`));
    };
    verdict.replaceChildren(count(true, "forgotten"), count(false, "kept"));
    blocks.replaceChildren(...Object.entries(SETS).map(([set, { title, aim }]) => [title, aim, rows.filter((row) => row.set === set)])
      .filter(([, , some]) => some.length)
      .map(([title, aim, some]) => h("div", { class: "block" }, h("p", { class: "title" }, title), some.map((row) => answered({
        text: row.text,
        aim,
        counts: row.word,
        words: row.words,
        lines: [["before", row.before], ["after", row.after]],
        verdict: good(row) === null ? null : [good(row), said(row)],
      })))));
  }

  function choose() {
    const some = of(group.value);
    const before = seed.control.selectedIndex;
    seed.setOptions(some.map((i) => [i, masks[i].label || masks[i].group]));
    seed.control.selectedIndex = Math.min(Math.max(before, 0), some.length - 1);
    draw();
  }

  const kernel = asker(model, status, (answer) => {
    if ("layer" in answer) byHead[answer.mask][answer.layer] = answer;
    else typedCases[answer.mask].unshift(answer);
    draw();
  });
  const ask = () => kernel.ask({ mask: Number(seed.value), prompt: prompt.value });
  const prompt = textField({ label: "your prompt", placeholder: "A cafe is a kind of", onEnter: ask });
  prompt.node.classList.add("wide");
  const own = ownForm(model, "prompt", prompt.node, button("Ask", ask));
  const share = linkButton(model, () => ({
    facts: group.value, seed: shown().label, part: part.value, prompt: typedCases[seed.value][0]?.questions[0][1],
  }), (fields) => {
    if (group.choose(fields.facts)) choose();
    seed.choose(masks.findIndex((m) => m.group === group.value && m.label === (fields.seed || "")));
    draw();
    if (part.choose(fields.part)) draw();
    const waits = Number(fields.part) >= part.control.options.length; // for whoever can give heads back
    if (!fields.prompt && !waits) return;
    prompt.value = fields.prompt || "";
    onceLive(model, status, () => {
      if (waits && part.choose(fields.part)) draw();
      if (fields.prompt) ask();
    });
  });

  const box = frame(el, "Mask explorer: a subnetwork, and the model without it",
    h("div", { class: "controls" }, group.node, seed.node, part.node), status.node, verdict,
    total, h("div", { class: "panels" }, h("div", { class: "panel", style: { "--wanted": "26rem" } }, grid.node, key),
      h("div", { class: "panel aside" }, details)),
    own, blocks, share);
  group.value = groups[0];
  choose();
  link.reset(0, 0);
  model.on("change:live", draw); // whoever answers can give heads back
  return () => {
    model.off("change:live", draw);
    kernel.dispose();
    box.remove();
  };
}

export default { render };
