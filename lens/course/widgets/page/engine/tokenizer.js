// Which tokens are a text, and which word is a token?  Byte-level byte-pair encoding, as GPT-2 has it.
//
// A text is cut into words, each with the space before it.  A word is written as its UTF-8 bytes, each byte as a letter
// that can be seen (a space as Ġ), and begins as a piece for each.  Of all neighbors the pair that stands first in the
// list of merges becomes one piece, again and again, until no neighbors are in the list.  Text stays data: whatever a
// reader types is looked up and never run.

const WORDS =
  /'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\p{White_Space}\p{L}\p{N}]+|\p{White_Space}+(?!\P{White_Space})|\p{White_Space}+/gu;
const BLANK = /^[\p{White_Space}\x1c-\x1f]*$/u;

/** What no space comes before: marks that close or separate, 's and its like, Thai, Lao, Burmese, Khmer, Han, kana. */
const UNSPACED = new RegExp(
  "^(?:[,.;:!?%…)\\]}”»](?![\\p{L}\\p{N}_])|['’](?:[stmd]|re|ve|ll)(?![\\p{L}\\p{N}_])" +
    "|[\\u0e00-\\u0eff\\u1000-\\u109f\\u1780-\\u17ff\\u2e80-\\u312f\\u3190-\\u9fff\\uf900-\\ufaff\\uff00-\\uffef\\u{20000}-\\u{3ffff}])",
  "iu",
);

/** A letter for every byte: itself where it can be seen, else one from 256 up, in order. */
function byteLetters() {
  let next = 256;
  return Array.from({ length: 256 }, (_, byte) => {
    const seen = (byte > 32 && byte < 127) || (byte > 160 && byte !== 173);
    return String.fromCharCode(seen ? byte : next++);
  });
}

/** encode(text) → ids; decode(ids) → text; word(id) → the token as people read it; of a tokenizer.json. */
function makeTokenizer({ model, added_tokens: added }) {
  const ids = new Map(Object.entries(model.vocab));
  const ranks = new Map(model.merges.map((pair, i) => [Array.isArray(pair) ? pair.join(" ") : pair, i]));
  const special = new Map(added.map(({ id, content }) => [content, id]));
  const pieces = [];
  for (const [piece, id] of [...ids, ...special]) pieces[id] = piece;
  const letters = byteLetters();
  const bytes = new Map(letters.map((letter, byte) => [letter, byte]));
  const escaped = [...special.keys()].map((text) => text.replace(/[|\\{}()[\]^$+*?.]/g, "\\$&"));
  const known = new Map();

  function merged(word) {
    let parts = [...word];
    for (;;) {
      const rank = (i) => ranks.get(`${parts[i]} ${parts[i + 1]}`) ?? Infinity;
      let best = Infinity;
      for (let i = 0; i + 1 < parts.length; i++) best = Math.min(best, rank(i));
      if (best === Infinity) return parts;
      const joined = [];
      for (let i = 0; i < parts.length; i++) joined.push(rank(i) === best ? parts[i] + parts[++i] : parts[i]);
      parts = joined;
    }
  }

  function wordIds(word) {
    if (!known.has(word)) {
      const spelled = Array.from(new TextEncoder().encode(word), (byte) => letters[byte]).join("");
      known.set(word, merged(spelled).map((piece) => ids.get(piece)));
    }
    return known.get(word);
  }

  function encode(text) {
    const half = text.match(/\p{Cs}/u);
    if (half) {
      const code = half[0].charCodeAt(0).toString(16);
      throw new Error(`The text holds '\\u${code}', half a character that UTF-8 cannot write: remove it.`);
    }
    const parts = escaped.length ? text.split(new RegExp(`(${escaped.join("|")})`)) : [text];
    const plainIds = (part) => (part.match(WORDS) || []).flatMap(wordIds);
    return parts.flatMap((part) => (special.has(part) ? [special.get(part)] : plainIds(part)));
  }

  const bytesOf = (id) => Uint8Array.from([...pieces[id]].map((letter) => bytes.get(letter)));

  /** The text of these ids; what stands around a text is left out, or with `whole` spelled. */
  function decode(some, whole = false) {
    const all = some.filter((id) => whole || !special.has(pieces[id])).flatMap((id) => [...bytesOf(id)]);
    return new TextDecoder("utf-8", { ignoreBOM: true }).decode(Uint8Array.from(all));
  }

  /** Leading spaces as ·, line breaks and tabs as \n, \r and \t, a byte that is no whole character as \xc3. */
  function word(id) {
    if (pieces[id] === undefined) return `[${id}]`;
    const text = special.has(pieces[id]) ? pieces[id] : readable(bytesOf(id));
    const rest = text.replace(/^ +/, "");
    const seen = rest.replace(/\n/g, "\\n").replace(/\t/g, "\\t").replace(/\r/g, "\\r");
    return "·".repeat(text.length - rest.length) + seen;
  }

  return { encode, decode, word };
}

/** UTF-8 as text, each byte that is part of no whole character as \xNN. */
function readable(bytes) {
  let text = "";
  for (let i = 0; i < bytes.length; ) {
    const size = bytes[i] < 0x80 ? 1 : bytes[i] < 0xe0 ? 2 : bytes[i] < 0xf0 ? 3 : 4;
    try {
      text += new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes.subarray(i, i + size));
      i += size;
    } catch {
      text += `\\x${bytes[i++].toString(16).padStart(2, "0")}`;
    }
  }
  return text;
}

/** The ids of a prompt; one sentence where it has none, or more than the model reads. */
function promptIds(model, text) {
  return fitting(model, model.tokenizer.encode(text));
}

function fitting(model, ids) {
  if (!ids.length) throw new Error("The prompt has no tokens: give it at least one word.");
  if (ids.length > model.context) {
    throw new Error(`The prompt has ${ids.length} tokens and this model reads at most ${model.context}: shorten it.`);
  }
  return ids;
}

/** The text that a target adds to its prompt: a word gets the space before it, "##ing" is "ing", " x" and "," stay. */
function continuation(target) {
  if (target.startsWith("##")) return target.slice(2);
  const first = [...target][0] ?? "";
  return (first && BLANK.test(first)) || UNSPACED.test(target) ? target : ` ${target}`;
}

/** The ids of a target, tokenized behind a letter, as running text is. */
function targetIds(model, target) {
  const text = continuation(target);
  const { encode } = model.tokenizer;
  for (const before of BLANK.test(text) ? [] : ["a", "\n", ""]) {
    const head = encode(before), both = encode(before + text);
    if (head.every((id, i) => both[i] === id)) return both.slice(head.length);
  }
  throw new Error("The target has no tokens: give the word the model should say next, such as 'Paris'.");
}
