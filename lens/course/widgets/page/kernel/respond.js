// Who answers an explorer where no Python runs?  The same requests, the same cases, from the engine in this page.
//
//     kernel = openKernel(globalThis.lensModels.mini, globalThis.lensMasks)
//     answer = await respond(kernel, request, state.kernel, cancelled)
//
// openKernel(files, masks): `files` (null where only overlaps are asked for) = { config, tokenizer, weights } as model_script has put them (weights: base64, or an
// ArrayBuffer); `masks` = what mask_script has put into lensMasks, by digest.  More may come: Object.assign(kernel.masks, …).
//
// respond(kernel, request, settings, cancelled): `request` = { id, … } as the page sets it; `settings` = what the
// explorer's state says of itself in `state.kernel` (null there: only its own Python answers this explorer):
//
//     { explorer: "lens" | "edit" | "mask" | "overlap", model, fingerprint, … }
//
// The promise gives { id, case } or { id, problem }, as Python does, and never fails.  Between two pieces of work of a
// few milliseconds it lets other messages through; where cancelled() is then true it gives null.  One request at a
// time: while a request is answered the weights may be edited, and whenever the kernel lets go they are whole.
//
// Requests, the same for Python and for the page:
//     lens      { prompt, target }                                    one case of state.cases, with its own `words`
//     edit      { prompt, subject, target }                           one case of state.facts
//               { …, free }             the same edits, but the only question is this prompt of the reader's ("free")
//               { fact, free }                                        of a prepared fact, by its place in state.facts
//               { …, layer, eta }       only the first editor (or number `editor`), there and so strong: after[0][0][0]
//     mask      { mask, prompt }                                      { mask, questions, before, after, words }
//               { mask, layer }         the prepared prompts without all of it but each head of this layer
//     overlap   { of: [i, j] or [i, j, k] }                           { of: "i,j", found }
//               { of, prompt }          without each region of them     { of, questions, before, after, words }

const CASES = { lens: lensCase, edit: editCase, mask: maskCase, overlap: overlapCase };

function openKernel(files, masks = {}) {
  return { model: files && modelOf(files), masks, opened: new Map(), runs: new Map(), words: new Map() };
}

function modelOf({ config, tokenizer, weights }) {
  return openModel(typeof weights === "string" ? fromBase64(weights).buffer : weights, config, tokenizer);
}

async function respond(kernel, request, settings, cancelled = () => false) {
  const { id } = request;
  const breathe = async () => {
    await letOthers();
    if (cancelled()) throw CANCELLED;
  };
  try {
    return { id, case: plain(await CASES[settings.explorer](kernel, request, settings, breathe)) };
  } catch (error) {
    if (error === CANCELLED) return null;
    const foreseen = error.constructor === Error;
    return { id, problem: plain(foreseen ? error.message : `This could not be computed (${error.name}): ${error.message}`) };
  }
}

const CANCELLED = new Error("A newer question has come.");

/** Waits until the messages that have come meanwhile are heard: a setTimeout would wait 4 ms more. */
function letOthers() {
  return new Promise((go) => {
    const { port1, port2 } = new MessageChannel();
    port1.onmessage = () => {
      port1.close();
      go();
    };
    port2.postMessage(null);
  });
}

/** As plain JSON, with Python's rounding: four significant digits, no NaN or infinity, no half of a character. */
function plain(value) {
  if (Number.isInteger(value)) return value;
  if (typeof value === "number") return Number.isFinite(value) ? Number(value.toPrecision(4)) : null;
  if (typeof value === "string") return value.replace(/\p{Cs}/gu, "?");
  if (ArrayBuffer.isView(value)) return Array.from(value, plain);
  if (Array.isArray(value)) return value.map(plain);
  if (value === null || typeof value !== "object") return value;
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, plain(item)]));
}
