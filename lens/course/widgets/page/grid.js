// A table of words on heat colors, to be walked through with pointer or keys, and the scale of its colors.

const STEPS = 9; // colors of the ramp, --heat-0 … --heat-8 in explorer.css

/** Values → steps of the heat ramp: linear, or logarithmic where they span more than two powers of ten. */
function heatScale(values, { low, high, log } = {}) {
  const known = values.filter((v) => v !== null && v !== undefined);
  const positive = known.filter((v) => v > 0);
  const top = high ?? Math.max(...known);
  const wide = log ?? (positive.length && top > 100 * Math.min(...positive));
  const bottom = low ?? Math.min(...(wide ? positive : known));
  const f = wide ? (v) => Math.log(Math.max(v, bottom)) : (v) => v;
  const step = (v) => {
    if (v === null || v === undefined) return null;
    const share = f(top) > f(bottom) ? (f(v) - f(bottom)) / (f(top) - f(bottom)) : 1;
    return Math.round(Math.min(1, Math.max(0, share)) * (STEPS - 1));
  };
  return { step, low: bottom, high: top, log: Boolean(wide), empty: known.length === 0 };
}

/** The key to a heat scale: least and greatest value with the ramp between them. */
function legend(scale, label, format = number) {
  if (scale.empty) return h("p", { class: "legend" });
  const ramp = Array.from({ length: STEPS }, (_, i) => h("span", { "data-heat": i }));
  return h("p", { class: "legend" }, h("span", {}, `${label}${scale.log ? " (log scale)" : ""}`),
    h("span", { class: "key" }, format(scale.low), h("span", { class: "ramp", "aria-hidden": "true" }, ramp),
      format(scale.high)));
}

/**
 * A table of words on heat colors.  show({ columns, rows, cell }) draws it: texts of both headers, and
 * cell(row, column) → { text, heat: 0…8 or null, label, faint }, or { halves: [{ text, heat }, …], label }.  linkGrids says what happens at a cell.
 */
function heatGrid({ label, corner = "" }) {
  const table = h("table", { role: "grid", "aria-label": label });
  const node = h("div", { class: "scroll" }, table);
  let cells = [];
  let at = [0, 0];
  const place = (event) => {
    const cell = event.target.closest("td");
    const row = cells.findIndex((line) => line.includes(cell));
    return row < 0 ? null : [row, cells[row].indexOf(cell)];
  };
  const move = (row, column) => {
    const clip = (i, n) => Math.min(n - 1, Math.max(0, i));
    grid.enter(clip(row, cells.length), clip(column, cells[0].length));
    cells[at[0]][at[1]].focus();
  };
  const grid = {
    node,
    table,
    on: {},
    get at() {
      return at;
    },
    show({ columns, rows, cell, label: now = label }) {
      const focused = table.contains(document.activeElement);
      table.setAttribute("aria-label", now);
      cells = rows.map((_, r) => columns.map((__, c) => {
        const { text, heat, halves, label: name, faint } = cell(r, c);
        return h("td", { tabindex: -1, "data-heat": heat, "aria-label": name, class: faint ? "faint" : null },
          halves ? h("span", { class: "halves" }, halves.map((half) => h("span", { "data-heat": half.heat }, half.text)))
            : h("span", { class: "word" }, text));
      }));
      const header = (text, scope) => h("th", { scope }, h("span", { class: "word" }, text));
      table.replaceChildren(
        h("thead", {}, h("tr", {}, h("td", { class: "corner" }, corner), columns.map((c) => header(c, "col")))),
        h("tbody", {}, rows.map((r, i) => h("tr", {}, header(r, "row"), cells[i]))));
      table.style.setProperty("--columns", columns.length);
      if (cells.length && cells[0].length) {
        grid.enter(Math.min(at[0], rows.length - 1), Math.min(at[1], columns.length - 1));
        if (focused) cells[at[0]][at[1]].focus();
      }
    },
    /** Where Tab enters the grid. */
    enter(row, column) {
      for (const line of cells) for (const cell of line) cell.tabIndex = -1;
      at = [row, column];
      cells[row][column].tabIndex = 0;
    },
    /** Scrolls the grid in its own box, never the page. */
    reveal(column) {
      const cell = cells[0][column];
      const [left, right] = [cell.offsetLeft, cell.offsetLeft + cell.offsetWidth];
      if (right > node.scrollLeft + node.clientWidth) node.scrollLeft = right - node.clientWidth + 4;
      else if (left < node.scrollLeft) node.scrollLeft = 0;
    },
    mark(look, pin) {
      cells.forEach((line, r) => line.forEach((cell, c) => {
        const is = (spot) => Boolean(spot && spot[0] === r && spot[1] === c);
        cell.classList.toggle("look", is(look));
        cell.setAttribute("aria-selected", String(is(pin)));
      }));
    },
  };
  const steps = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
  table.addEventListener("keydown", (event) => {
    if (!place(event) || event.ctrlKey || event.metaKey || event.altKey) return;
    const step = steps[event.key];
    if (step) move(at[0] + step[0], at[1] + step[1]);
    else if (event.key === "Home") move(at[0], 0);
    else if (event.key === "End") move(at[0], Infinity);
    else if (event.key === "Enter" || event.key === " ") grid.on.pin?.(...at);
    else if (event.key === "Escape") grid.on.unpin?.();
    else return;
    event.preventDefault();
    event.stopPropagation();
  });
  const reach = (event, name) => {
    const spot = place(event);
    if (!spot) return;
    if (name !== "hover") grid.enter(...spot);
    grid.on[name === "click" ? "pin" : "look"]?.(...spot);
  };
  table.addEventListener("focusin", (event) => reach(event, "focus"));
  table.addEventListener("mouseover", (event) => reach(event, "hover"));
  table.addEventListener("click", (event) => reach(event, "click"));
  return grid;
}

/**
 * One place for several grids of the same shape: look(row, column, pinned) is called for the cell under the pointer or
 * the focus; a pinned cell stays until it is unpinned or another is pinned.  refresh() repeats it after a change.
 */
function linkGrids(grids, look) {
  let seen = null;
  let pin = null;
  const tell = () => {
    const spot = pin || seen;
    grids.forEach((grid) => grid.mark(seen, pin));
    if (spot) look(spot[0], spot[1], Boolean(pin));
  };
  const same = (a, b) => Boolean(a && b && a[0] === b[0] && a[1] === b[1]);
  const link = {
    look(row, column) {
      if (same(seen, [row, column])) return;
      seen = [row, column];
      tell();
    },
    pin(row, column) {
      pin = same(pin, [row, column]) ? null : [row, column];
      seen = [row, column];
      tell();
    },
    unpin() {
      pin = null;
      tell();
    },
    refresh: tell,
    get pinned() {
      return pin;
    },
    /** Look at this cell, and forget the pinned one. */
    reset(row, column) {
      pin = null;
      seen = [row, column];
      for (const grid of grids) {
        grid.enter(row, column);
        grid.reveal(column);
      }
      tell();
    },
  };
  grids.forEach((grid) => (grid.on = link));
  return link;
}
