// The overlap explorer: two or three subnetworks as a Venn diagram, and their counts beside chance.
// state.found["0,1"][part] = [weights, sizes, regions, in all, IoU]; a region is [count, chance], in the order of its
// bits from 1; the last two are [observed, chance, low, high].

const SIZE = 320; // of the drawing, in its own units

/** How far apart must the centers of two circles be, so that they share this area? */
function apart(r, s, area) {
  const shared = (d) => {
    if (d >= r + s) return 0;
    if (d <= Math.abs(r - s)) return Math.PI * Math.min(r, s) ** 2;
    const part = (a, b) => {
      const angle = Math.acos((d * d + a * a - b * b) / (2 * d * a));
      return a * a * (angle - Math.sin(2 * angle) / 2);
    };
    return part(r, s) + part(s, r);
  };
  let [near, far] = [Math.abs(r - s), r + s];
  for (let i = 0; i < 50; i++) {
    const d = (near + far) / 2;
    if (shared(d) > area) near = d;
    else far = d;
  }
  return (near + far) / 2;
}

/** Circles [x, y, r] of these sizes, every two of which share the area given; of three, as nearly as distances allow. */
function circles(sizes, both) {
  const r = sizes.map((n) => Math.sqrt(n / Math.PI));
  const d = apart(r[0], r[1], both[0]);
  const placed = [[0, 0, r[0]], [d, 0, r[1]]];
  if (sizes.length === 3) {
    const [a, b] = [apart(r[0], r[2], both[1]), apart(r[1], r[2], both[2])];
    const x = d ? Math.min(a, Math.max(-a, (a * a + d * d - b * b) / (2 * d))) : a;
    placed.push([x, Math.sqrt(Math.max(0, a * a - x * x)), r[2]]);
  }
  const edges = [0, 1].map((i) => [Math.min(...placed.map((c) => c[i] - c[2])), Math.max(...placed.map((c) => c[i] + c[2]))]);
  const scale = (SIZE - 4) / Math.max(...edges.map(([low, high]) => high - low), 1e-9);
  const height = (edges[1][1] - edges[1][0]) * scale + 4;
  const middle = (SIZE - (edges[0][1] - edges[0][0]) * scale) / 2;
  return { height, placed: placed.map(([x, y, radius]) => [middle + (x - edges[0][0]) * scale, 2 + (y - edges[1][0]) * scale, radius * scale]) };
}

/** For each region the point that is farthest from every circle's edge, and how far. */
function centers(placed, height) {
  const best = {};
  for (let x = 2; x < SIZE; x += 3) {
    for (let y = 2; y < height; y += 3) {
      let [bits, room] = [0, Infinity];
      placed.forEach(([cx, cy, r], i) => {
        const inside = r - Math.hypot(x - cx, y - cy);
        if (inside > 0) bits |= 1 << i;
        room = Math.min(room, Math.abs(inside));
      });
      if (bits && room > (best[bits]?.room ?? 0)) best[bits] = { x, y, room };
    }
  }
  return best;
}

function venn(names, [, sizes, regions]) {
  const n = sizes.length;
  const shared = (i, j) => regions.reduce((sum, [count], k) => sum + ((k + 1) >> i & (k + 1) >> j & 1 ? count : 0), 0);
  const both = n === 2 ? [shared(0, 1)] : [shared(0, 1), shared(0, 2), shared(1, 2)];
  const { placed, height } = circles(sizes, both);
  const where = centers(placed, height);
  const middle = [0, 1].map((axis) => placed.reduce((sum, circle) => sum + circle[axis], 0) / n);
  const outward = ([x, y, r], i) => {
    const [dx, dy] = [x - middle[0], y - middle[1]];
    const far = Math.hypot(dx, dy) || 1;
    return svg("text", { class: "letter", x: x + (dx / far) * (r - 14), y: y + (dy / far) * (r - 14) + 4, "text-anchor": "middle" }, LETTERS[i]);
  };
  const label = `Venn diagram: ${names.map((name, i) => `${name} ${number(sizes[i])}`).join("; ")}; in all ${number(regions.at(-1)[0])}.`;
  return svg("svg", { viewBox: `0 0 ${SIZE} ${height.toFixed(1)}`, width: SIZE, role: "img", "aria-label": label },
    placed.map(([x, y, r], i) => svg("circle", { cx: x.toFixed(1), cy: y.toFixed(1), r: r.toFixed(1), class: `set set-${i}` })),
    regions.map(([count], k) => {
      const spot = where[k + 1];
      const text = whole(count);
      return spot && spot.room > 3.3 * text.length && svg("text", { class: "count", x: spot.x, y: spot.y + 4, "text-anchor": "middle" }, text);
    }), placed.map(outward));
}

const LETTERS = ["A", "B", "C"]; // colors alone would not tell the circles apart
const whole = (value) => Math.round(value).toLocaleString("en-US");
const few = (value) => (value >= 100 ? whole(value) : number(value));
const times = (observed, expected) => (expected ? `${number(observed / expected)} ×` : "–");
const inPercent = (share) => `${number(100 * share)} %`;

function render({ model, el }) {
  const state = model.get("state");
  const { masks } = state;
  const found = { ...state.found };
  const live = () => model.get("live");
  const asked = {}; // what was typed, by the subnetworks of which it was asked
  const name = (i) => [masks[i].group, masks[i].label].filter(Boolean).join(", ");
  const options = masks.map((_, i) => [i, name(i)]);
  const status = statusLine();

  const first = selectField({ label: "first", options, value: 0, onChange: draw });
  const second = selectField({ label: "second", options, value: 1, onChange: draw });
  const third = selectField({ label: "third", options: [["", "none"]], onChange: draw });
  const part = selectField({ label: "layers and sites", onChange: draw });
  const picture = h("div", { class: "picture" });
  const keys = h("ol", { class: "sets" });
  const sentence = h("p", { class: "sentence", "aria-live": "polite" });
  const numbers = h("div", { class: "numbers" });
  const everyRegion = h("details", {}, h("summary", {}, "every region as a table"));

  const kernel = asker(model, status, (answer) => {
    if (answer.found) found[answer.of] = answer.found;
    else (asked[answer.of] ??= []).unshift(answer);
    draw();
  });
  const ask = () => kernel.ask({ of: offer(), prompt: prompt.value });
  const prompt = textField({ label: "your prompt", placeholder: "A cafe is a kind of", onEnter: ask });
  prompt.node.classList.add("wide");
  const own = state.asks && ownForm(model, "prompt", prompt.node, button("Ask without them", ask));
  const blocks = h("div", {});
  const keyOf = (list) => [...list].sort((a, b) => a - b).join(",");

  /** Only what is known can be chosen; with a kernel, everything. */
  function offer() {
    const taken = Number(first.value);
    second.setOptions(options.filter(([i]) => i !== taken));
    const two = [taken, Number(second.value)];
    third.setOptions([["", "none"], ...options.filter(([i]) => !two.includes(i) && (live() || found[keyOf([...two, i])]))]);
    third.node.hidden = third.control.options.length < 2;
    return third.value === "" ? two : [...two, Number(third.value)];
  }

  function draw() {
    const chosen = offer();
    const key = keyOf(chosen);
    const rows = found[key];
    const parts = state.parts.map((text, i) => [i, text]);
    const partly = live() || (rows && rows.length > 1);
    part.setOptions(partly ? parts : parts.slice(0, 1));
    part.node.hidden = !partly;
    if (!rows || !rows[part.value]) return kernel.ask({ of: chosen });
    status.clear();
    show(key.split(",").map(Number), rows[part.value]);
    const names = removed(chosen.length);
    blocks.replaceChildren(...(asked[key] || []).map(({ questions: [[, text, word]], words, before, after }) => answered({
      text, aim: "said before", counts: word, words, lines: [["before", before[0]], ...after.map((one, i) => [names[i], one[0]])],
    })));
  }

  /** What is taken out: every region, each of the n alone, and all. */
  function removed(n) {
    const regions = Array.from({ length: (1 << n) - 1 }, (_, k) => LETTERS.filter((_, i) => (k + 1) >> i & 1).join("∩"));
    const letters = LETTERS.slice(0, n);
    return [...regions.map((text, k) => (k + 2 === 1 << n ? text : `${text} only`)), ...letters, letters.join("∪")].map((text) => `− ${text}`);
  }

  function show(of, row) {
    const [total, sizes, regions, shared, iou] = row;
    const names = of.map(name);
    picture.replaceChildren(...(sizes.some(Boolean) ? [venn(names, row)] : [h("p", { class: "note" }, "All of them are empty here.")]));
    keys.replaceChildren(...names.map((text, i) => h("li", {}, h("span", { class: `dot set-${i}` }, LETTERS[i]), h("span", {}, text),
      h("span", { class: "name" }, `${whole(sizes[i])} ${state.unit}, ${inPercent(sizes[i] / total)}`))));
    const [observed, expected, low, high] = shared;
    const everywhere = of.length === 2 ? "both" : "all three";
    const scroll = (label, ...rows) => h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": label }, h("table", {}, rows));
    sentence.replaceChildren(h("b", {}, `${whole(observed)} ${state.unit}`), ` are in ${everywhere}`, ...(expected
      ? [": ", h("b", {}, `${number(observed / expected)} times`), ` as many as by chance (${few(expected)}; 95 of 100 draws give ${few(low)} to ${few(high)}).`]
      : ["."]));
    const line = (title, [o, e, l, u], format) => h("tr", {}, h("th", { scope: "row" }, title),
      [format(o), format(e), `${format(l)} to ${format(u)}`, times(o, e)].map((text) => h("td", {}, text)));
    const header = (titles) => h("thead", {}, h("tr", {}, titles.map((text) => (text ? h("th", { scope: "col" }, text) : h("td", {})))));
    numbers.replaceChildren(scroll("overlap beside chance", header(["", "observed", "chance", "95 % of chance", "ratio"]),
      h("tbody", {}, line(`in ${everywhere}`, shared, few), line("IoU", iou, inPercent))));
    const member = (k) => names.filter((_, i) => (k + 1) >> i & 1).join(" and ") + (k + 2 === 1 << of.length ? "" : " only");
    everyRegion.replaceChildren(everyRegion.firstChild, scroll("every region", header(["in", state.unit, "chance", "ratio"]),
      h("tbody", {}, regions.map(([count, chance], k) => h("tr", {}, h("th", { scope: "row" }, member(k)),
        [whole(count), few(chance), times(count, chance)].map((text) => h("td", {}, text)))))));
  }

  const choices = { first, second, third, part };
  const share = linkButton(model, () => ({
    ...Object.fromEntries(Object.entries(choices).map(([field, { value }]) => [field, value])),
    prompt: asked[keyOf(offer())]?.[0].questions[0][1],
  }), (fields) => {
    for (const [field, choice] of Object.entries(choices)) {
      if (field in fields) choice.choose(fields[field]);
      draw(); // what can be chosen next depends on it
    }
    if (!fields.prompt || !own) return;
    prompt.value = fields.prompt;
    onceLive(model, status, ask);
  });

  const box = frame(el, "Overlap explorer: what subnetworks share",
    h("div", { class: "controls" }, first.node, second.node, third.node, part.node), status.node, sentence,
    h("div", { class: "panels" }, h("div", { class: "panel" }, picture), h("div", { class: "panel" }, keys)), numbers, everyRegion, own, blocks,
    !live() && second.control.options.length > 5 && h("p", { class: "note" }, `${model.get("beside") ? "With the model in this page" : "In a running notebook"} any three can be compared, in every layer and site.`), share);
  offer();
  const triple = third.control.options[1];
  if (triple) third.value = triple.value;
  draw();
  model.on("change:live", draw);
  return () => {
    model.off("change:live", draw);
    kernel.dispose();
    box.remove();
  };
}

export default { render };
