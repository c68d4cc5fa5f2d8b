// What the tests ask of the engine, in a browser or in node: answer(source, argument) runs `source`, a function of one
// argument that sees the functions of engine and kernel and the models that were opened; it may give a promise.

const opened = {};

function model(name) {
  const { config, tokenizer, weights } = globalThis.lensModels[name];
  return (opened[name] ??= openModel(fromBase64(weights).buffer, config, tokenizer));
}

/** A typed array as base64 of float32. */
function packed(values) {
  const bytes = new Uint8Array(Float32Array.from(values).buffer);
  let text = "";
  for (let i = 0; i < bytes.length; i += 8192) text += String.fromCharCode(...bytes.subarray(i, i + 8192));
  return btoa(text);
}

/** All weights as one number each, to see whether any has changed. */
function traces(m) {
  const trace = ({ W }) => W.reduce((sum, w, i) => sum + w * (1 + (i % 7919)), 0);
  return m.layers.flatMap(({ qkv, out, ff1, ff2 }) => [qkv, out, ff1, ff2].map(trace));
}

async function answer(source, argument) {
  try {
    return { value: await (0, eval)(source)(argument) };
  } catch (error) {
    return { problem: error.message, where: String(error.stack) };
  }
}
