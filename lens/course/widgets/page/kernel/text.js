// How does Python read and show a text?  White space, letters and quotation marks as its str has them.
//
// Problems are Python's sentences word for word, and some of them quote what the reader typed: as repr shows it.

const SPACE = "[\\p{White_Space}\\x1c-\\x1f]+";
const AT_START = new RegExp(`^${SPACE}`, "u");
const AT_END = new RegExp(`${SPACE}$`, "u");

const leftStripped = (text) => text.replace(AT_START, "");
const rightStripped = (text) => text.replace(AT_END, "");
const stripped = (text) => leftStripped(rightStripped(text));

/** A field of a request as text, "" where it is missing. */
function asked(request, name) {
  const value = request[name];
  return value === undefined ? "" : typeof value === "string" ? value : shownInPython(value);
}

/** repr of a value that JSON can hold. */
function shownInPython(value) {
  if (value === null || value === undefined) return "None";
  if (typeof value === "boolean") return value ? "True" : "False";
  if (Array.isArray(value)) return `[${value.map(shownInPython).join(", ")}]`;
  if (typeof value === "object") {
    return `{${Object.entries(value).map((pair) => pair.map(shownInPython).join(": ")).join(", ")}}`;
  }
  return typeof value === "string" ? quoted(value) : String(value);
}

/** repr of a text: in single quotes unless only they are in it, and what cannot be seen as its number. */
function quoted(text) {
  const mark = text.includes("'") && !text.includes('"') ? '"' : "'";
  const named = { "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t", [mark]: `\\${mark}` };
  const letter = (c) => {
    if (named[c]) return named[c];
    if (c === " " || !/[\p{C}\p{Z}]/u.test(c)) return c;
    const code = c.codePointAt(0).toString(16);
    return code.length <= 2 ? `\\x${code.padStart(2, "0")}` : code.length <= 4 ? `\\u${code.padStart(4, "0")}` : `\\U${code.padStart(8, "0")}`;
  };
  return mark + [...text].map(letter).join("") + mark;
}

/** Does this letter combine with the one before it?  Then it takes part in Unicode's canonical order. */
function combines(c) {
  return c === "\u0345" || `a\u0345${c}`.normalize("NFD") !== `a\u0345${c.normalize("NFD")}`;
}

const inWord = (c) => Boolean(c) && (/^[\p{L}\p{N}]$/u.test(c) || combines(c));

/**
 * Where `name` first stands in `text` as a whole word, else as a part of one, in either spelling of its letters (composed
 * or not): { before, after }, the text on both sides; null where it does not stand there.
 */
function found(text, name) {
  if (!stripped(name)) return null;
  const letters = [...text];
  const spelled = letters.map((c) => [...c.normalize("NFD")]);
  const origin = [...spelled.flatMap((parts, i) => parts.map(() => i)), letters.length];
  const seen = [...text.normalize("NFD")], sought = [...name.normalize("NFD")];
  let part = null;
  for (let a = 0; a + sought.length <= seen.length; a++) {
    if (!sought.every((c, i) => seen[a + i] === c)) continue;
    const b = a + sought.length, before = seen[a - 1], after = seen[b];
    if ((a && origin[a] === origin[a - 1]) || origin[b] === origin[b - 1] || (after && combines(after))) continue;
    const sides = { before: letters.slice(0, origin[a]).join(""), after: letters.slice(origin[b]).join("") };
    if (!((inWord(before) && inWord(sought[0])) || (inWord(sought.at(-1)) && inWord(after)))) return sides;
    part ??= sides;
  }
  return part;
}
