// Where are the model's numbers, and how does whatever overwrites them put them back?  One file's bytes, by name.
//
// The file is a safetensors file as the book ships it: the length of a header, the header as JSON (for each name of
// GPT-2's state dict its type, its shape and where it lies), then the numbers, float16.  They are read as float32.
// Every weight is [d_in, d_out], and a linear map is z = x W + b.

/** float16: a sign, 5 bits of exponent e, 10 bits of fraction f: ±(1 + f/1024)·2^(e−15), and ±f·2^(−24) where e = 0. */
function halfTable() {
  const table = new Float32Array(1 << 16);
  for (let bits = 0; bits < table.length; bits++) {
    const e = (bits >> 10) & 31, f = bits & 1023;
    const size = e === 31 ? (f ? NaN : Infinity) : e ? (1 + f / 1024) * 2 ** (e - 15) : f * 2 ** -24;
    table[bits] = bits >> 15 ? -size : size;
  }
  return table;
}

function widened(bytes, table) {
  const halves = new Uint16Array(bytes);
  const values = new Float32Array(halves.length);
  for (let i = 0; i < values.length; i++) values[i] = table[halves[i]];
  return values;
}

/** The tensors of a safetensors file (an ArrayBuffer), by name, as Float32Arrays. */
function readTensors(buffer) {
  const start = 8 + Number(new DataView(buffer).getBigUint64(0, true));
  const { __metadata__, ...header } = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 8, start - 8)));
  const table = halfTable();
  const tensors = {};
  for (const [name, { dtype, data_offsets: [begin, end] }] of Object.entries(header)) {
    if (dtype !== "F16" && dtype !== "F32") throw new Error(`The weights ${name} are ${dtype}: give float16 or float32.`);
    const bytes = buffer.slice(start + begin, start + end);
    tensors[name.replace(/^transformer\./, "")] = dtype === "F32" ? new Float32Array(bytes) : widened(bytes, table);
  }
  return tensors;
}

const BASE64 = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const SIX_BITS = Uint8Array.from({ length: 128 }, (_, code) => Math.max(0, BASE64.indexOf(String.fromCharCode(code))));

/** The bytes of a text in base64, three of four letters of six bits.  Letters that come as bytes are overwritten. */
function fromBase64(text) {
  const bytes = typeof text === "string" ? new TextEncoder().encode(text) : text;
  const six = (i) => SIX_BITS[bytes[i]];
  const padding = bytes.subarray(-2).filter((letter) => letter === 61).length; // "=" at the end
  let end = 0;
  for (let i = 0; i < bytes.length; i += 4) {
    const bits = (six(i) << 18) | (six(i + 1) << 12) | (six(i + 2) << 6) | six(i + 3);
    bytes[end++] = bits >> 16;
    bytes[end++] = bits >> 8;
    bytes[end++] = bits;
  }
  return bytes.subarray(0, end - padding);
}

/** A model of GPT-2's kind, by the book's names for its parts: the weights' file, config.json and tokenizer.json. */
function openModel(buffer, config, tokenizer) {
  if (config.model_type !== "gpt2") {
    throw new Error(`This page reads models of GPT-2's kind, and this is ${config.model_type}.`);
  }
  const w = readTensors(buffer);
  const norm = (name) => ({ gain: w[`${name}.weight`], bias: w[`${name}.bias`] });
  const linear = (name) => ({ W: w[`${name}.weight`], b: w[`${name}.bias`] });
  const layers = Array.from({ length: config.n_layer }, (_, l) => ({
    ln1: norm(`h.${l}.ln_1`),
    qkv: linear(`h.${l}.attn.c_attn`), // W [d, 3 d]: queries, keys and values side by side
    out: linear(`h.${l}.attn.c_proj`), // W [d, d]
    ln2: norm(`h.${l}.ln_2`),
    ff1: linear(`h.${l}.mlp.c_fc`), // W [d, d_m]
    ff2: linear(`h.${l}.mlp.c_proj`), // W [d_m, d]
  }));
  return {
    layers,
    E: w["wte.weight"], // [V, d], the embedding and the unembedding
    P: w["wpe.weight"], // [context, d], an embedding for every position
    final: norm("ln_f"),
    width: config.n_embd,
    heads: config.n_head,
    size: config.vocab_size,
    context: config.n_positions,
    epsilon: config.layer_norm_epsilon,
    tokenizer: makeTokenizer(tokenizer),
    changes: [],
  };
}

/** The matrix that holds a site's weight, its width, and which columns are the site's: { W, width, first, size }. */
function siteWeight(model, layer, site) {
  const third = ["attn_q", "attn_k", "attn_v"].indexOf(site);
  const part = third >= 0 ? "qkv" : site === "attn_out" ? "out" : site;
  const depth = model.layers.length;
  if (!(Number.isInteger(layer) && layer >= 0 && layer < depth)) {
    throw new Error(`There is no layer ${layer}: this model has ${depth} layers, 0 to ${depth - 1}.`);
  }
  if (!["qkv", "out", "ff1", "ff2"].includes(part)) {
    const known = "attn_q, attn_k, attn_v, attn_out, ff1, ff2";
    throw new Error(`There is no site '${site}' in this model: choose one of ${known}.`);
  }
  const { W, b } = model.layers[layer][part];
  const size = third < 0 ? b.length : b.length / 3;
  return { W, width: b.length, first: Math.max(third, 0) * size, size };
}

/** Lets `write` change some matrices, and returns how to undo that, bit for bit: { undo }.  The last one goes first. */
function overwrite(model, matrices, write) {
  const kept = new Map([...new Set(matrices)].map((W) => [W, W.slice()]));
  const putBack = () => kept.forEach((old, W) => W.set(old));
  const change = {
    lies: (W) => kept.has(W),
    undo() {
      const place = model.changes.indexOf(change);
      if (place < 0) return;
      if (model.changes.slice(place + 1).some((later) => [...kept.keys()].some(later.lies))) {
        throw new Error("A later change lies on the same weights: undo that one first.");
      }
      putBack();
      model.changes.splice(place, 1);
    },
  };
  try {
    write();
  } catch (error) {
    putBack();
    throw error;
  }
  model.changes.push(change);
  return change;
}
