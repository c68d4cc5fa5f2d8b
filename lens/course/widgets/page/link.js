// An explorer's state in the page's address, so that a finding can be sent:  page.html#explorer=1&prompt=…&layer=7
//
// What an address brings is data: it is compared with what there is to choose, or stands in a field as if it were typed.

/** The fields of an address that are meant for explorer number `place` of its page, else null. */
function addressed(hash, place) {
  const fields = Object.fromEntries(new URLSearchParams(hash.slice(1)));
  return Number(fields.explorer) === place ? fields : null;
}

/**
 * "Copy link": the address with what read() gives, fields by name.  follow(fields) is called for an address that brings
 * some, when the page opens and when the reader comes to one.  null in a notebook, whose address is not the explorer's.
 */
function linkButton(model, read, follow) {
  const place = model.get("place");
  if (!place) return null;
  const said = h("span", { class: "note", role: "status" });
  const copy = async () => {
    const fields = Object.entries(read()).filter(([, value]) => value !== null && value !== undefined && value !== "");
    const hash = new URLSearchParams([["explorer", place], ...fields]);
    history.replaceState(null, "", `#${hash}`);
    try {
      await navigator.clipboard.writeText(location.href);
      said.textContent = "The link is copied.";
    } catch {
      said.textContent = "The link stands in the address bar.";
    }
  };
  const node = h("div", { class: "link" }, button("Copy link", copy), said);
  const hear = () => {
    const fields = addressed(location.hash, place);
    if (!fields) return;
    follow(fields);
    node.closest(".lens-explorer")?.scrollIntoView({ block: "start" });
  };
  window.addEventListener("hashchange", hear);
  setTimeout(hear); // the explorer is drawn by then
  return node;
}

/** Calls ask() now, or as soon as somebody can answer. */
function onceLive(model, status, ask) {
  if (model.get("live")) return ask();
  status.say("This link brings a question of its sender: use the model in this page to ask it.");
  const hear = () => {
    model.off("change:live", hear);
    ask();
  };
  model.on("change:live", hear);
}
