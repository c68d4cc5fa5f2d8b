// Lecture mode: the chapter's claims and figures on a full screen, one a slide. L or the button begins, Esc ends.
// → goes on, ← back; a claim asks for a vote (1, 2) before it shows its numbers.
(() => {
  const h = (tag, props, ...children) => {
    const node = Object.assign(document.createElement(tag), props);
    node.append(...children.filter((child) => child !== null && child !== undefined));
    return node;
  };
  const article = document.querySelector(".bd-article");
  const titled = article && article.querySelector("h1");
  const pictures = [...document.querySelectorAll(".bd-article .cell_output img")];
  const stored = document.querySelector(".bd-article script.lens-claims");
  const claims = stored ? JSON.parse(stored.textContent) : [];
  if (!titled || !pictures.length) return;

  const wordsOf = (node) => {
    const copy = node.cloneNode(true);
    copy.querySelectorAll(".headerlink").forEach((one) => one.remove());
    return copy;
  };

  function figureSlide(img) {
    const section = img.closest("section");
    const caption = [...section.querySelectorAll(":scope > p")].find((p) => (
      img.compareDocumentPosition(p) & Node.DOCUMENT_POSITION_FOLLOWING && p.firstElementChild?.tagName === "EM"));
    const tall = ({ target }) => target.parentElement.classList.toggle("tall", target.naturalHeight > 0.75 * target.naturalWidth);
    return () => h("div", { className: "slide" }, h("h2", {}, ...wordsOf(section.querySelector("h1, h2, h3")).childNodes),
      h("img", { src: img.src, alt: img.alt, onload: tall }), caption && h("p", { className: "caption" }, ...wordsOf(caption).childNodes));
  }

  /** The claim's value beside its control, both bars on one scale. */
  function bars({ measure, value, control, shares, verdict, count }) {
    const bar = (name, text, share) => h("div", { className: `bar ${name}` }, h("span", {}, name),
      h("span", { className: "track" }, h("span", { className: "fill", style: `width: ${100 * share}%` })), h("b", {}, text));
    return h("div", { className: "reveal" }, h("p", { className: "verdict" }, verdict), h("p", {}, measure, count ? `, n = ${count}` : ""),
      bar("measured", value, shares[0]), control === null ? null : bar("control", control, shares[1]));
  }

  function claimSlide(claim) {
    return () => {
      const slide = h("div", { className: "slide claim" }, h("h2", {}, claim.says));
      const reveal = (vote) => {
        if (slide.querySelector(".reveal")) return false;
        slide.querySelectorAll(".vote button").forEach((one, i) => one.setAttribute("aria-pressed", String(i === vote)));
        slide.append(bars(claim));
        return true;
      };
      const choices = ["holds", "does not hold"].map((text, i) => h("button", { type: "button", onclick: () => reveal(i) }, `${i + 1}  ${text}`));
      slide.append(h("div", { className: "vote" }, h("span", {}, "Your vote:"), ...choices));
      slide.reveal = reveal;
      return slide;
    };
  }

  /** The explorer itself, for as long as its slide is shown. */
  function explorerSlide(root) {
    const room = h("div", {});
    return () => {
      root.replaceWith(room);
      return h("div", { className: "slide", leave: () => room.replaceWith(root) }, root);
    };
  }

  const first = () => h("div", { className: "slide" }, h("h1", {}, ...wordsOf(titled).childNodes),
    h("p", { className: "opening" }, ...wordsOf(titled.parentElement.querySelector("p")).childNodes));
  const slides = [first, ...pictures.map(figureSlide), ...claims.map(claimSlide),
    ...[...document.querySelectorAll(".bd-article .lens-explorer-root")].map(explorerSlide)];
  let at = 0;
  let shown = null;

  const stage = h("div", { className: "stage" });
  const place = h("p", { className: "at" });
  const dialog = h("dialog", { className: "lecture", ariaLabel: "Lecture mode" }, stage, h("div", { className: "bar-below" },
    h("button", { type: "button", ariaLabel: "back", onclick: () => go(-1) }, "←"), place,
    h("button", { type: "button", ariaLabel: "on", autofocus: true, onclick: () => go(1) }, "→"),
    h("button", { type: "button", onclick: () => dialog.close() }, "end (Esc)")));
  dialog.addEventListener("close", () => {
    shown?.leave?.();
    shown = null;
    if (document.fullscreenElement) document.exitFullscreen();
  });
  document.addEventListener("fullscreenchange", () => document.fullscreenElement || dialog.close());

  /** On: a claim first shows what was measured, then the next slide comes. */
  function go(step) {
    if (step > 0 && shown?.reveal?.(-1)) return;
    shown?.leave?.();
    at = Math.min(slides.length - 1, Math.max(0, at + step));
    shown = slides[at]();
    stage.replaceChildren(shown);
    place.textContent = `${at + 1} of ${slides.length}`;
  }

  async function begin() {
    if (!dialog.isConnected) document.body.append(dialog);
    await document.documentElement.requestFullscreen?.().catch(() => {}); // where it is refused, the window is filled
    dialog.showModal();
    go(0);
  }

  dialog.addEventListener("keydown", ({ key, target }) => {
    if (target.closest(".lens-explorer")) return;
    if (["ArrowRight", "PageDown"].includes(key)) go(1);
    else if (["ArrowLeft", "PageUp"].includes(key)) go(-1);
    else if (key === "1" || key === "2") shown.reveal?.(Number(key) - 1);
  });
  document.addEventListener("keydown", (event) => {
    const writes = event.target.closest?.("input, textarea, select, [contenteditable]");
    if (event.key.toLowerCase() === "l" && !(event.ctrlKey || event.metaKey || event.altKey || writes || dialog.open)) begin();
  });
  titled.after(h("button", { type: "button", className: "begin-lecture", onclick: begin }, "Lecture mode (L)"));
})();
