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
      kernel = openKernel(open.files || globalThis.lensModels[open.name], { ...globalThis.lensMasks, ...open.masks });
      self.postMessage({ opened: true });
    } catch (error) {
      self.postMessage({ problem: error.message });
    }
  } else {
    left = false;
    self.postMessage({ answer: await respond(kernel, request, settings, () => left) });
  }
};
