// What the Worker runs beside engine and kernel: it opens the model once, then answers one request after another.
//
//     { open: { name, files, masks } } → { opened } or { problem }
//     { request, settings } → { answer },  the kernel's, or null where meanwhile { cancel } has come

let kernel = null;
let left = false; // is the question that is being answered one that nobody waits for?

self.onmessage = async ({ data: { open, request, settings, cancel } }) => {
  if (cancel) {
    left = true;
  } else if (open) {
    try {
      const files = open.files || globalThis.lensModels[open.name];
      const letters = files.weights instanceof Blob && new Uint8Array(await files.weights.arrayBuffer());
      const weights = letters ? fromBase64(letters).buffer : files.weights;
      kernel = openKernel({ ...files, weights }, { ...globalThis.lensMasks, ...open.masks });
      self.postMessage({ opened: true });
    } catch (error) {
      self.postMessage({ problem: error.message });
    }
  } else {
    left = false;
    self.postMessage({ answer: await respond(kernel, request, settings, () => left) });
  }
  collect();
};

/**
 * What was computed is garbage now, about 10 MB, and a browser lets 64 MB of it lie before it collects.  It counts what
 * buffers could hold: so large a one brings it to collect now, and takes no memory itself, as nothing is written to it.
 */
function collect() {
  new ArrayBuffer(1 << 26);
}
