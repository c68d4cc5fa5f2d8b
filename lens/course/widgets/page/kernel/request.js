// What is an edit asked to do?  "After `prompt`, with `subject` in its place, say `target`", and which bad request is it?

/** The request of what a reader typed: { prompt, text, subject, target }; one sentence where it is none. */
function editRequest(prompt, subject, target) {
  let [place, name, said] = [prompt, subject, target].map((text) => stripped(text).normalize("NFC"));
  if (!stripped(name)) {
    throw new Error("The subject of an edit is empty: give the words the fact is about, such as 'France'.");
  }
  if (!place.includes("{}")) {
    const sides = found(place, name);
    if (sides) place = `${sides.before}{}${sides.after}`;
  }
  if (place.split("{}").length !== 2) {
    throw new Error(
      `The subject ${quoted(name)} has no place in the prompt ${quoted(place)}: write {} where it stands, once.`,
    );
  }
  if (!rightStripped(continuation(said))) {
    throw new Error("The target of an edit is empty: give the word the model should say, such as 'Rome'.");
  }
  return { prompt: place, text: place.split("{}").join(name), subject: name, target: said };
}
