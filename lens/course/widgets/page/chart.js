// The chart explorer: y over x as lines or bars, for the rows that the selects choose, and these rows as a table.

const HEIGHT = 300;
const MARKERS = [
  "M-3.5,0a3.5,3.5 0 1,0 7,0a3.5,3.5 0 1,0 -7,0", "M-3,-3h6v6h-6z", "M0,-4l4,7h-8z", "M0,-4.5l4.5,4.5l-4.5,4.5l-4.5,-4.5z",
  "M-4,-3.5h8l-4,7z", "M-1.2,-4h2.4v2.8h2.8v2.4h-2.8v2.8h-2.4v-2.8h-2.8v-2.4h2.8z",
];
const DASHES = ["none", "7 3", "2 3", "9 3 2 3"];
const lineColor = (i) => `var(--line-${i % 6})`;
const distinct = (list) => [...new Set(list)];
const shown = (v) => (typeof v === "number" ? number(v) : v === null || v === undefined ? "–" : String(v));

/** Round values between low and high, about `count` of them. */
function ticks(low, high, count, log) {
  if (log) {
    const decades = Math.log10(high / low);
    const factors = decades < 1.2 ? [1, 2, 3, 5] : decades < 2.5 ? [1, 3] : [1];
    const stride = Math.max(1, Math.ceil(decades / count));
    const found = [];
    for (let e = Math.floor(Math.log10(low)); e <= Math.ceil(Math.log10(high)); e += stride)
      found.push(...factors.map((f) => f * 10 ** e));
    return found.filter((v) => v >= low * 0.999 && v <= high * 1.001);
  }
  const rough = (high - low) / count || 1;
  const unit = 10 ** Math.floor(Math.log10(rough));
  const step = unit * [1, 2, 5, 10].find((f) => f * unit >= rough * 0.999);
  const found = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + 1e-9 * step; i++) found.push(Number((i * step).toPrecision(12)));
  return found;
}

/** An axis: value → pixel, with its ticks. */
function axis(values, from, to, { log, zero, count }) {
  const usable = values.filter((v) => v !== null && (!log || v > 0));
  let low = Math.min(...usable, ...(zero && !log ? [0] : []));
  let high = Math.max(...usable, ...(zero && !log ? [0] : []));
  if (zero && log) low /= 1.6;
  if (!(high > low)) [low, high] = log ? [low / 2, low * 2] : [low - (Math.abs(low) || 1) / 2, low + (Math.abs(low) || 1) / 2];
  if (!zero && !log && low > 0 && low < 0.4 * high) low = 0;
  const f = log ? Math.log : (v) => v;
  const at = (v) => from + ((f(v) - f(low)) / (f(high) - f(low))) * (to - from);
  return { at, low, high, ticks: ticks(low, high, count, log), draws: (v) => v !== null && (!log || v > 0) };
}

/** Rows of equal x as one point: the mean, the least and the largest. */
function points(rows, x, y) {
  const groups = new Map();
  for (const row of rows) if (row[x] !== null && typeof row[y] === "number") groups.set(row[x], [...(groups.get(row[x]) || []), row[y]]);
  return [...groups].map(([at, values]) => ({
    x: at, y: values.reduce((a, b) => a + b, 0) / values.length, low: Math.min(...values), high: Math.max(...values), n: values.length,
  }));
}

function drawLines(series, width, state, y, say) {
  const all = series.flatMap((s) => s.points);
  const tall = axis(all.flatMap((p) => [p.low, p.high]), HEIGHT - 44, 14, { log: state.log.includes(y), count: 5 });
  const left = 14 + 7 * Math.max(...tall.ticks.map((t) => number(t).length), 1);
  const across = axis(all.map((p) => p.x), left + 8, width - 14, { log: state.log.includes(state.x), count: width < 480 ? 4 : 7 });
  const place = (p) => [across.at(p.x), tall.at(p.y)];
  const path = (list) => list.map((xy, i) => `${i ? "L" : "M"}${xy.map((v) => v.toFixed(1))}`).join("");
  const tip = svg("text", { class: "tip", "text-anchor": "middle", "aria-hidden": "true" });
  const focus = svg("circle", { r: 7, fill: "none", stroke: "var(--look)", "stroke-width": 2, visibility: "hidden" });
  const spots = [];
  const body = series.map((s, i) => {
    const drawn = s.points.filter((p) => across.draws(p.x) && tall.draws(p.y)).sort((a, b) => a.x - b.x);
    drawn.forEach((p) => spots.push({ ...p, at: place(p), name: s.name }));
    const band = drawn.some((p) => p.n > 1) && [...drawn.map((p) => [across.at(p.x), tall.at(p.high)]),
      ...drawn.map((p) => [across.at(p.x), tall.at(tall.draws(p.low) ? p.low : tall.low)]).reverse()];
    return svg("g", {},
      band && svg("path", { d: `${path(band)}Z`, fill: lineColor(i), opacity: 0.15 }),
      svg("path", { d: path(drawn.map(place)), fill: "none", stroke: lineColor(i), "stroke-width": 1.8, "stroke-dasharray": DASHES[i % 4] }),
      drawn.length < 80 && drawn.map((p) => svg("path", { d: MARKERS[i % 6], transform: `translate(${place(p)})`, fill: lineColor(i) })));
  });
  const look = (event) => {
    const box = chart.getBoundingClientRect();
    const far = (s) => Math.hypot(s.at[0] - (event.clientX - box.left), s.at[1] - (event.clientY - box.top));
    const near = spots.reduce((best, s) => (!best || far(s) < far(best) ? s : best), null);
    if (!near) return;
    ["cx", "cy"].forEach((name, i) => focus.setAttribute(name, near.at[i]));
    focus.setAttribute("visibility", "visible");
    tip.textContent = number(near.y);
    tip.setAttribute("x", Math.min(near.at[0], width - 30));
    tip.setAttribute("y", near.at[1] < 30 ? near.at[1] + 24 : near.at[1] - 12);
    const spread = near.n > 1 ? `, mean of ${near.n}, ${number(near.low)} to ${number(near.high)}` : "";
    say(`${near.name ? `${near.name}: ` : ""}${state.labels[state.x]} ${number(near.x)}, ${state.labels[y]} ${number(near.y)}${spread}`);
  };
  const chart = svg("svg", { width, height: HEIGHT, role: "img", on: { pointermove: look, pointerdown: look } },
    tall.ticks.map((t) => [
      svg("line", { class: "guide", x1: left, x2: width - 6, y1: tall.at(t), y2: tall.at(t) }),
      svg("text", { class: "tick", x: left - 6, y: tall.at(t), dy: "0.35em", "text-anchor": "end" }, number(t)),
    ]),
    across.ticks.map((t) => [
      svg("line", { class: "axis", x1: across.at(t), x2: across.at(t), y1: HEIGHT - 36, y2: HEIGHT - 32 }),
      svg("text", { class: "tick", x: across.at(t), y: HEIGHT - 19, "text-anchor": "middle" }, number(t)),
    ]),
    svg("line", { class: "axis", x1: left, x2: width - 6, y1: HEIGHT - 36, y2: HEIGHT - 36 }),
    svg("text", { class: "quiet", x: width - 6, y: HEIGHT - 2, "text-anchor": "end" },
      state.labels[state.x] + (state.log.includes(state.x) ? " (log scale)" : "")), body, focus, tip);
  return chart;
}

function drawBars(series, width, state, y) {
  const names = distinct(series.flatMap((s) => s.points.map((p) => p.x)));
  const log = state.log.includes(y);
  const beside = (s, p) => `${number(p.y)}  ${s.name}`; // named where it is drawn: a color alone says too little
  const room = 14 + 7 * Math.max(...series.flatMap((s) => s.points.map((p) => beside(s, p).length)));
  const scale = axis(series.flatMap((s) => s.points.map((p) => p.y)), 2, Math.max(width / 2, width - room), { log, zero: true, count: width < 480 ? 3 : 6 });
  const thick = series.length > 3 ? 13 : 16;
  const parts = [];
  let top = 4;
  for (const name of names) {
    parts.push(svg("text", { x: 2, y: top + 12 }, shown(name)));
    top += 18;
    series.forEach((s, i) => {
      const p = s.points.find((one) => one.x === name);
      if (!p) return;
      const ends = scale.draws(p.y) ? [scale.at(log ? scale.low : 0), scale.at(p.y)].sort((a, b) => a - b) : [2, 2];
      parts.push(
        svg("rect", { x: ends[0], y: top + 1, width: Math.max(1, ends[1] - ends[0]), height: thick - 2, rx: 2, fill: lineColor(i) }),
        svg("text", { class: "quiet", x: ends[1] + 5, y: top + thick / 2, dy: "0.35em" }, beside(s, p)));
      top += thick + 1;
    });
    top += 9;
  }
  const guides = scale.ticks.map((t) => [
    svg("line", { class: "guide", x1: scale.at(t), x2: scale.at(t), y1: 0, y2: top }),
    svg("text", { class: "tick", x: scale.at(t), y: top + 15, "text-anchor": scale.at(t) < 12 ? "start" : "middle" }, number(t)),
  ]);
  return svg("svg", { width, height: top + 22, role: "img" }, guides, parts);
}

function render({ model, el }) {
  const state = model.get("state");
  const columns = Object.keys(state.columns);
  const rows = state.columns[state.x].map((_, i) => Object.fromEntries(columns.map((c) => [c, state.columns[c][i]])));
  const y = selectField({ label: "shown", options: state.y.map((c) => [c, state.labels[c]]), onChange: () => draw() });
  const selects = state.by.map((column) => selectField({ label: state.labels[column], onChange: () => choose() }));
  const [head, key, drawing] = [h("p", { class: "title" }), h("p", { class: "legend" }), h("div", { class: "drawing" })];
  const readout = h("p", { class: "status" });
  const table = h("table", {});
  let chosen = rows;

  /** Each select offers what the ones before it left. */
  function choose() {
    chosen = rows;
    state.by.forEach((column, i) => {
      const values = distinct(chosen.map((row) => row[column]));
      selects[i].setOptions(values.map((v) => [String(v), shown(v)]));
      chosen = chosen.filter((row) => String(row[column]) === selects[i].value);
    });
    draw();
  }

  function draw() {
    const column = y.value;
    const names = state.hue ? distinct(chosen.map((row) => row[state.hue])) : [null];
    const series = names.map((name) => ({
      name: name === null ? "" : shown(name),
      points: points(state.hue ? chosen.filter((row) => row[state.hue] === name) : chosen, state.x, column),
    }));
    const log = state.log.includes(column) ? " (log scale)" : "";
    head.textContent = `${state.labels[column]}${log}`;
    const sample = (s, i) => h("span", { class: "sample" }, svg("svg", { width: 22, height: 14, "aria-hidden": "true" },
      svg("line", { x1: 0, x2: 22, y1: 7, y2: 7, stroke: lineColor(i), "stroke-width": 1.8, "stroke-dasharray": DASHES[i % 4] }),
      svg("path", { d: MARKERS[i % 6], transform: "translate(11 7)", fill: lineColor(i) })), s.name);
    key.hidden = !state.hue || state.kind === "bar";
    if (!key.hidden) key.replaceChildren(h("span", {}, state.labels[state.hue]), ...series.map(sample));
    readout.textContent = "";
    const width = Math.max(240, Math.floor(drawing.clientWidth || 600));
    const chart = series.some((s) => s.points.length)
      ? (state.kind === "bar" ? drawBars : drawLines)(series, width, state, column, (text) => (readout.textContent = text))
      : h("p", { class: "note" }, "No row of this choice has a number to show.");
    chart.setAttribute("aria-label", `${state.labels[column]} over ${state.labels[state.x]}, `
      + `${chosen.length} rows${names[0] === null ? "" : `, by ${state.labels[state.hue]}`}; the numbers are in the table below`);
    drawing.replaceChildren(chart);
    const kept = [...(state.hue ? [state.hue] : []), state.x, ...state.y].filter((c, i, list) => list.indexOf(c) === i);
    table.replaceChildren(
      h("thead", {}, h("tr", {}, kept.map((c) => h("th", { scope: "col" }, state.labels[c])))),
      h("tbody", {}, chosen.map((row) => h("tr", {}, kept.map((c) => h("td", {}, shown(row[c])))))));
  }

  y.node.hidden = state.y.length < 2;
  const title = state.title || `${state.labels[state.y[0]]} over ${state.labels[state.x]}`;
  const box = frame(el, title, state.title && h("p", { class: "title main" }, state.title),
    h("div", { class: "controls" }, selects.map((s) => s.node), y.node), head, key, drawing, readout,
    h("details", {}, h("summary", {}, "the numbers"), h("div", { class: "scroll", tabindex: 0 }, table)));
  choose();
  let width = drawing.clientWidth;
  const resized = new ResizeObserver(() => {
    if (drawing.clientWidth !== width) draw();
    width = drawing.clientWidth;
  });
  resized.observe(drawing);
  return () => {
    resized.disconnect();
    box.remove();
  };
}

export default { render };
