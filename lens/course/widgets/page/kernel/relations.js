// Whose answers should an edit leave alone?  As relations.py has it: the same question about the relation's other subjects.

/** The prompts of the longest template that fits `text`, each with another subject; none where none fits. */
function siblings(text, relations) {
  let longest = "", subjects = [];
  for (const [templates, some] of relations) {
    for (const template of templates) {
      if (template.length > longest.length && fits(template, text)) [longest, subjects] = [template, some];
    }
  }
  return subjects.map((subject) => filled(longest, subject)).filter((other) => other !== text);
}

/** Is the text this template with a subject in its place? */
function fits(template, text) {
  const [before, after] = template.split("{}");
  return text.startsWith(before) && text.endsWith(after) && text.length > before.length + after.length;
}

function filled(template, subject) {
  return template.split("{}").join(template.startsWith("{}") ? subject[0].toUpperCase() + subject.slice(1) : subject);
}
