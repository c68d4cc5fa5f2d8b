// Questions that answer in place: an option is a <details>, so keyboard and screen reader need no help. This script
// counts first choices and keeps them in this browser alone; where it may not keep anything, it counts this visit.
document.addEventListener("DOMContentLoaded", () => {
  const section = document.getElementById("questions");
  if (!section) return;
  const key = `lens questions ${location.pathname.split("/").pop()}`;
  const read = () => { try { return JSON.parse(localStorage.getItem(key)) || {}; } catch { return {}; } };
  const keep = () => { try { localStorage.setItem(key, JSON.stringify(first)); } catch { /* a private window */ } };
  let first = read();

  let question = 0;
  const questions = new Set();
  for (const part of section.children) {
    if (part.matches("p") && part.querySelector(":scope > strong:first-child")) questions.add(++question);
    if (!part.matches("details")) continue;
    const right = part.querySelector("strong").textContent === "Right.";
    part.classList.add(right ? "right-option" : "wrong-option");
    const number = question;
    part.addEventListener("toggle", () => {
      if (!part.open || number in first) return;
      first[number] = right;
      keep();
      tell();
    });
  }

  const line = document.createElement("p");
  line.className = "questions-line";
  const said = document.createElement("span");
  said.setAttribute("role", "status");
  const again = document.createElement("button");
  again.type = "button";
  again.textContent = "Start over";
  again.addEventListener("click", () => {
    first = {};
    keep();
    for (const option of section.querySelectorAll("details")) option.open = false;
    tell();
  });
  line.append(said, again);
  section.append(line);

  function tell() {
    const chosen = Object.values(first), right = chosen.filter(Boolean).length;
    said.textContent = chosen.length
      ? `First choices: ${right} right of ${chosen.length}, of ${questions.size} questions. Kept in this browser only.`
      : "";
    again.hidden = !chosen.length;
  }
  tell();
});
