// The model of a page without a notebook: values from the page itself; and where the model lies beside the page and the
// reader has loaded it, a kernel that answers as Python does.

function pageModel(values) {
  const listeners = new Map();
  const changed = new Set();
  const of = (event) => listeners.get(event) || listeners.set(event, new Set()).get(event);
  return {
    get: (name) => values[name],
    set(name, value) {
      values[name] = value;
      changed.add(name);
    },
    on: (event, listener) => of(event).add(listener),
    off: (event, listener) => of(event).delete(listener),
    save_changes() {
      const names = [...changed];
      changed.clear();
      for (const name of names) for (const listener of [...of(`change:${name}`)]) listener();
    },
  };
}

/** Requests go to the model beside the page, and its answers come back, as from a notebook's kernel. */
function connect(page, beside) {
  const put = (name, value) => {
    page.set(name, value);
    page.save_changes();
  };
  page.on("change:request", () => {
    const { to = "", slot = to, ...request } = page.get("request"); // to which explorer of several, and in whose place
    const state = page.get("state");
    const settings = (to ? state[to] : state).kernel;
    beside.ask(`${page.get("place")} ${slot}`, request, settings, (answer) => put("answer", answer));
  });
  beside.on(({ state }) => {
    if (page.get("live") !== (state === "ready")) put("live", state === "ready");
  });
}

function show(explorer, id, css) {
  if (!document.getElementById("lens-explorer-style")) {
    const style = document.createElement("style");
    style.id = "lens-explorer-style";
    style.textContent = css;
    document.head.append(style);
  }
  const root = document.getElementById(id);
  const { engine, ...values } = JSON.parse(root.querySelector('script[type="application/json"]').textContent);
  const beside = engine ? modelBeside(engine.model) : null;
  const place = [...document.querySelectorAll(".lens-explorer-root")].indexOf(root) + 1;
  root.model = pageModel({ request: {}, answer: {}, place, beside: Boolean(beside), ...values });
  explorer.render({ model: root.model, el: root });
  if (!beside) return;
  connect(root.model, beside);
  (root.querySelector("[data-beside]") || root.querySelector(".lens-explorer")).append(modelBar(beside));
  if (engine.atOnce || remembered(beside.name)) setTimeout(() => beside.load());
}
