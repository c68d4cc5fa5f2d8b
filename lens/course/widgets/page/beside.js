// The model beside the page: one script file, loaded when the reader asks, and run in a Worker for all explorers.
//
//     asleep → loading → ready,     or stopped by a problem, which is one sentence
//
// The page announces its models: lensBeside[name] = { address, bytes }, or { model, program, bytes } where both stand in
// the page itself, as the texts of elements with these ids.  Each explorer has one question at a time: a new one takes
// the place of the old, which the Worker is told to leave; where it cannot, it is ended and opened again.

const LONG = 400; // ms that a question may go on which nobody waits for any more: about what opening the model costs
const PIECE = 1 << 20; // letters of the weights' text that are handled at a time
const REMEMBERED = "lens-model-in-page";

/** A sentence where this browser cannot run a model, else "". */
function lacking() {
  const missing = ["Worker", "Blob", "BigInt"].filter((name) => typeof globalThis[name] === "undefined");
  return missing.length ? `This browser has no ${missing.join(" and no ")}, which the model needs; the prepared prompts stay.` : "";
}

/** Did the reader once ask for the model?  A browser that keeps nothing answers no. */
function remembered(name, value) {
  try {
    if (value === true) localStorage.setItem(REMEMBERED, name);
    if (value === false) localStorage.removeItem(REMEMBERED);
    return localStorage.getItem(REMEMBERED) === name;
  } catch {
    return false;
  }
}

/** The model of this name that lies beside the page, the same one for every explorer; null where there is none. */
function modelBeside(name) {
  const place = globalThis.lensBeside?.[name];
  if (!place) return null;
  const running = (globalThis.lensRunning ??= {});
  return (running[name] ??= besideThePage(name, place));
}

function besideThePage(name, place) {
  const listeners = new Set();
  const waiting = new Map(); // owner → [request, settings, tell], the newest question of each explorer
  let current = null; // { owner, request, tell, since } of the question that the Worker is at
  let worker = null;
  let open = false;

  function turn(state, sentence = "") {
    Object.assign(self, { state, sentence });
    listeners.forEach((listener) => listener(self));
  }

  function stop() {
    worker?.terminate();
    [worker, open, current] = [null, false, null];
  }

  /** Ends the Worker, and whoever waits is told why. */
  function end(state, sentence) {
    const asked = [...waiting.values(), ...(current?.tell ? [[current.request, null, current.tell]] : [])];
    waiting.clear();
    stop();
    turn(state, state === "failed" ? sentence : "");
    asked.forEach(([request, , tell]) => tell({ id: request.id, problem: sentence }));
  }

  const fail = (sentence) => end("failed", sentence);

  function next() {
    if (!open || current || !waiting.size) return;
    const [owner, [request, settings, tell]] = waiting.entries().next().value;
    waiting.delete(owner);
    current = { owner, request, tell, since: performance.now() };
    worker.postMessage({ request, settings });
  }

  function heard({ data: { opened, problem, answer } }) {
    if (problem) return fail(`The model could not be opened: ${problem}`);
    if (opened) {
      open = true;
      if (self.state !== "ready") {
        remembered(name, true);
        turn("ready");
      }
    } else {
      const { tell } = current;
      current = null;
      tell?.(answer);
    }
    next();
  }

  /** The Worker, made of a text: nothing of it is loaded, so that it also works from a folder. */
  function start() {
    const { program, ...files } = place.program ? { program: source(place) } : globalThis.lensModels[name];
    const address = URL.createObjectURL(new Blob([program].flat(), { type: "text/javascript" }));
    worker = new Worker(address);
    worker.onmessage = heard;
    worker.onerror = (event) => {
      event.preventDefault();
      fail(`The model stopped (${event.message || "its Worker could not be started"}); the prepared prompts stay.`);
    };
    worker.postMessage({ open: { name, files: place.program ? null : files, masks: globalThis.lensMasks } });
    setTimeout(() => URL.revokeObjectURL(address), 10000);
  }

  const self = {
    name,
    bytes: place.bytes,
    state: "asleep",
    sentence: "",
    /** listener(self) now and at every change. */
    on(listener) {
      listeners.add(listener);
      listener(self);
    },
    async load() {
      if (self.state === "loading" || self.state === "ready") return;
      const sentence = lacking();
      if (sentence) return turn("failed", sentence);
      turn("loading", "reading the model…");
      try {
        if (!place.program && !globalThis.lensModels?.[name]) await scriptAt(place.address);
        turn("loading", "opening the model…");
        if (!place.program) await putAway(globalThis.lensModels[name]);
        start();
      } catch (error) {
        fail(error.message);
      }
    },
    /** tell(answer) once the request is answered, unless its owner asks for something else before. */
    ask(owner, request, settings, tell) {
      waiting.delete(owner); // the newest stands last
      waiting.set(owner, [request, settings, tell]);
      if (current && (current.owner === owner || !current.tell)) {
        if (current.tell) worker.postMessage({ cancel: true });
        current.tell = null;
        const asked = current;
        const over = () => {
          if (current !== asked || !waiting.size) return;
          stop();
          start();
        };
        setTimeout(over, Math.max(0, LONG - (performance.now() - current.since)));
      }
      next();
    },
    /** Ends the Worker; other chapters do not load the model by themselves any more. */
    quit() {
      remembered(name, false);
      end("asleep", "The model was stopped.");
    },
  };
  return self;
}

/**
 * The weights' text as a Blob, which lies outside the page's own memory: a piece at a time, so that the page stays awake.
 * The large buffer brings the browser to collect the text, as in worker.js.
 */
async function putAway(files) {
  if (typeof files.weights !== "string") return;
  const pieces = [];
  for (let at = 0; at < files.weights.length; at += PIECE) {
    pieces.push(new Blob([files.weights.slice(at, at + PIECE)]));
    await new Promise((go) => setTimeout(go));
  }
  files.weights = new Blob(pieces);
  new ArrayBuffer(1 << 26);
}

/** Model and program as they stand in the page: texts that the browser has not run. */
function source({ model, program }) {
  const text = (id) => document.getElementById(id).textContent;
  return [text(model), JSON.parse(text(program))];
}

function scriptAt(address) {
  return new Promise((resolve, reject) => {
    const script = document.createElement("script");
    const name = address.replace(/[?#].*/, "").split("/").at(-1);
    script.src = address;
    script.onload = () => {
      script.remove(); // and with it its text
      resolve();
    };
    script.onerror = () => {
      script.remove();
      reject(new Error(`The file ${name} could not be read: it belongs beside this page, in _static. The prepared prompts stay.`));
    };
    document.head.append(script);
  });
}

/** What stands below an explorer: a button that loads the model, what it is doing, or why it cannot. */
function modelBar(beside) {
  const size = `${Math.round(beside.bytes / 1e6)} MB`;
  const load = button("", () => beside.load());
  const quit = button("Stop the model", () => beside.quit());
  const progress = h("progress", { "aria-label": "the model is being loaded" });
  const note = h("span", { class: "note", role: "status" });
  const alert = h("p", { class: "problem", role: "alert" });
  beside.on(({ state, sentence }) => {
    load.hidden = state === "loading" || state === "ready" || Boolean(lacking());
    load.textContent = state === "failed" ? "Try again" : `Use the model in this page (${size})`;
    progress.hidden = state !== "loading";
    quit.hidden = state !== "ready";
    note.textContent = { asleep: "Then type your own: nothing leaves this machine.", loading: sentence,
      ready: "The model runs in this page. Nothing that you type leaves this machine." }[state] || "";
    alert.textContent = state === "failed" ? sentence : "";
  });
  return h("div", { class: "beside" }, load, progress, note, quit, alert);
}
