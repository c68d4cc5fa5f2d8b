// The parts that explorers are made of.  Whatever text arrives is shown as text: textContent and setAttribute only.

const instance = Math.random().toString(36).slice(2, 8);
let made = 0;

/** An id that no other explorer of the page has. */
function uid(name) {
  return `lens-${name}-${instance}-${++made}`;
}

function fill(node, props, children) {
  for (const [name, value] of Object.entries(props || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "on") Object.entries(value).forEach(([event, listener]) => node.addEventListener(event, listener));
    else if (name === "style") Object.entries(value).forEach(([key, v]) => node.style.setProperty(key, v));
    else node.setAttribute(name, value === true ? "" : value);
  }
  const shown = children.flat(Infinity).filter((c) => c !== null && c !== undefined && c !== false);
  node.append(...shown.map((child) => (child instanceof Node ? child : String(child))));
  return node;
}

/** An element: h("p", { class: "note", on: { click } }, "text", child). */
function h(tag, props, ...children) {
  return fill(document.createElement(tag), props, children);
}

/** The same inside an <svg>. */
function svg(tag, props, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", tag), props, children);
}

/** The explorer's own box in the host's element. */
function frame(el, label, ...children) {
  const quiet = { "data-lm-suppress-shortcuts": "true" }; // JupyterLab: a letter typed in a select is no shortcut
  const box = h("section", { class: "lens-explorer", "aria-label": label, ...quiet }, ...children);
  el.append(box);
  return box;
}

/** A number as people read it: whole numbers in full, others to three significant digits. */
function number(value) {
  if (value === null || value === undefined) return "–";
  if (Number.isInteger(value) && Math.abs(value) < 1e6) return value.toLocaleString("en-US").replace("-", "−");
  const size = Math.abs(value);
  if (size >= 1e6 || size < 1e-3) return value.toExponential(1).replace("e+", "e").replace("-", "−").replace("e-", "e−");
  return Number(value.toPrecision(3)).toLocaleString("en-US", { maximumSignificantDigits: size >= 1000 ? 7 : 3 })
    .replace("-", "−");
}

// --- controls: each is { node, control, value } ------------------------------------------------------------------

function labelled(label, control, more) {
  control.id = uid("field");
  const field = { node: h("div", { class: "field" }, h("label", { class: "name", for: control.id }, label), control), control };
  Object.defineProperty(field, "value", {
    get: () => control.value,
    set: (value) => (control.value = value),
  });
  /** Takes a value from outside, if there is such a choice. */
  field.choose = (value) => {
    const known = [...(control.options || [])].some((option) => option.value === String(value));
    if (known) control.value = value;
    return known;
  };
  return Object.assign(field, more);
}

/** A choice.  options: texts or [value, text] pairs; values come back as strings. setOptions(list) keeps the choice. */
function selectField({ label, options = [], value, onChange }) {
  const control = h("select", { on: { change: () => onChange && onChange(control.value) } });
  const setOptions = (list) => {
    const before = control.value;
    const pairs = list.map((o) => (Array.isArray(o) ? o : [o, o]));
    control.replaceChildren(...pairs.map(([v, text]) => h("option", { value: v }, text)));
    if (pairs.some(([v]) => String(v) === before)) control.value = before;
  };
  setOptions(options);
  if (value !== undefined) control.value = value;
  return labelled(label, control, { setOptions });
}

/** A slider over a list of values; `value` is the place in the list.  format(value) is shown and read aloud. */
function sliderField({ label, values, value = 0, format = String, onChange }) {
  const output = h("span", { class: "value" });
  const control = h("input", { type: "range", min: 0, max: values.length - 1, step: 1 });
  const tell = () => {
    output.textContent = format(values[control.value]);
    control.setAttribute("aria-valuetext", output.textContent);
  };
  control.value = value;
  control.addEventListener("input", () => {
    tell();
    if (onChange) onChange(Number(control.value));
  });
  tell();
  const field = labelled(label, control);
  field.set = (place) => {
    control.value = place;
    tell();
  };
  field.node.classList.add("slider");
  field.node.append(output);
  return field;
}

/** A line of text; onEnter(text) at Enter. */
function textField({ label, value = "", placeholder, onEnter }) {
  const control = h("input", { type: "text", placeholder, autocomplete: "off", spellcheck: "false" });
  control.value = value;
  control.addEventListener("keydown", (event) => {
    event.stopPropagation(); // a notebook has shortcuts of its own
    if (event.key === "Enter" && onEnter) onEnter(control.value);
  });
  return labelled(label, control);
}

function button(label, onClick) {
  return h("button", { type: "button", on: { click: onClick } }, label);
}

/** The line beside the controls: say(text), problem(sentence, field?), busy(text), clear(). */
function statusLine() {
  const note = h("p", { class: "status", role: "status" });
  const alert = h("p", { class: "problem", role: "alert", id: uid("problem") });
  let blamed = null;
  const set = (text, sentence, busy) => {
    note.textContent = text;
    alert.textContent = sentence;
    const box = note.closest(".lens-explorer");
    if (box) box.setAttribute("aria-busy", String(busy));
    if (blamed) ["aria-invalid", "aria-describedby"].forEach((name) => blamed.removeAttribute(name));
    blamed = null;
  };
  return {
    node: h("div", { class: "lines" }, note, alert),
    say: (text) => set(text, "", false),
    busy: (text = "computing…") => set(text, "", true),
    clear: () => set("", "", false),
    problem(sentence, field) {
      set("", sentence, false);
      if (!field) return;
      blamed = field.control;
      blamed.setAttribute("aria-invalid", "true");
      blamed.setAttribute("aria-describedby", alert.id);
    },
  };
}

/** Asks the kernel: ask({ prompt }) → onCase(case), or the problem's sentence in the status line and onProblem(). */
function asker(model, status, onCase, field, onProblem = () => {}) {
  let waiting = null;
  let patience = null;
  const hear = () => {
    const answer = model.get("answer");
    if (!waiting || !answer || answer.id !== waiting) return;
    waiting = null;
    clearTimeout(patience);
    if (answer.problem) {
      status.problem(answer.problem, field);
      return onProblem();
    }
    status.clear();
    onCase(answer.case);
  };
  model.on("change:answer", hear);
  return {
    ask(fields) {
      waiting = uid("request");
      status.busy();
      clearTimeout(patience);
      patience = setTimeout(() => waiting && status.busy("computing… (no answer yet: is the kernel running?)"), 15000);
      model.set("request", { ...fields, id: waiting });
      model.save_changes();
    },
    /** Whatever comes now is not wanted any more. */
    forget() {
      waiting = null;
      clearTimeout(patience);
    },
    dispose() {
      clearTimeout(patience);
      model.off("change:answer", hear);
    },
  };
}

/** The fields for the reader's own `what`, while somebody can answer; before that, what to do for it, or nothing (null). */
function ownForm(model, what, ...fields) {
  const form = h("div", { class: "controls own" }, fields);
  const note = h("p", { class: "note" });
  const tell = () => {
    form.hidden = !model.get("live");
    note.hidden = !form.hidden || !what;
    note.textContent = model.get("beside") ? `To type your own ${what}, use the model in this page.`
      : `In a running notebook you can type your own ${what}.`;
  };
  model.on("change:live", tell);
  tell();
  return h("div", { class: "typed" }, form, note);
}

/** A numbered list of words from `start`, each with a value beside it where there are values (as text). */
function wordList({ title, words, values, start = 1, marked }) {
  const item = (word, i) => h("li", { class: word === marked ? "marked" : null },
    h("span", { class: "place" }, start + i), h("span", { class: "word" }, word),
    values && h("span", { class: "value" }, values[i]));
  return h("div", { class: "words" }, h("p", { class: "name" }, title), h("ol", {}, words.map(item)));
}

// --- answers before and after: each is [p of the word that counts, 1 if it is said, word, p, word, p, …] ----------

/** A probability, in 1/10 000 as the state holds it. */
function chanceText(p) {
  return p < 1 ? "<0.01 %" : `${(p / 100).toFixed(p < 100 ? 2 : 1)} %`;
}

/** A bar that is filled to a share from 0 to 1; the number stands beside it. */
function track(share) {
  return h("span", { class: "track", "aria-hidden": "true" }, h("span", { class: "fill", style: { width: `${100 * share}%` } }));
}

function answerLine(when, answer, words, counts) {
  const [p, , ...best] = answer;
  const pairs = best.filter((_, i) => i % 2).map((q, i) => [words[best[2 * i]], q]);
  return h("div", { class: "line" }, h("span", { class: "when" }, when),
    h("span", { class: "best" }, pairs.map(([word, q], i) => h("span", { class: i ? "name" : "title" },
      h("span", { class: "word" }, word), ` ${chanceText(q)}`))),
    h("span", { class: "chance" }, track(p / 1e4), h("span", {}, h("span", { class: "hidden" }, `probability of ${counts}: `), chanceText(p))));
}

/** Said of a fact that is asked without neighbors; null of others. */
function aloneNote({ questions }) {
  if (questions.some(([measure]) => measure === "neighborhood")) return null;
  return h("span", { class: "note" }, "No neighbors: the prompt has the form of no known relation, so nothing here says what else the edit breaks.");
}

/** A prompt with its answers: lines are [when, answer] pairs, counts the word of the bars, verdict [is it good, text]. */
function answered({ text, aim, counts, lines, words, verdict }) {
  return h("div", { class: "answered" },
    h("p", { class: "asked" }, h("span", { class: "prompt" }, text, " …"),
      h("span", { class: "aim" }, `${aim} `, h("span", { class: "word" }, counts),
      verdict && h("span", { class: verdict[0] ? "good" : "wrong" }, verdict[0] ? " ✓ " : " ✗ ", verdict[1]))),
    lines.map(([when, answer]) => answerLine(when, answer, words, counts)));
}
