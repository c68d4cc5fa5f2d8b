// The model of a page without a kernel: values from the page itself, and nobody who answers.

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
      for (const name of names) for (const listener of of(`change:${name}`)) listener();
    },
  };
}

function show(explorer, id, css) {
  if (!document.getElementById("lens-explorer-style")) {
    const style = document.createElement("style");
    style.id = "lens-explorer-style";
    style.textContent = css;
    document.head.append(style);
  }
  const root = document.getElementById(id);
  const values = JSON.parse(root.querySelector('script[type="application/json"]').textContent);
  root.model = pageModel({ request: {}, answer: {}, ...values });
  explorer.render({ model: root.model, el: root });
}
