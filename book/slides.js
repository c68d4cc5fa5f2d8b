// Keys of a deck: arrows, Page Up and Down and Space go from slide to slide, n shows and hides the speaker notes.
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.closest("input, select, textarea, button, .lens-explorer-root")) return; // the explorer's own keys
  const by = { ArrowRight: 1, ArrowDown: 1, PageDown: 1, " ": 1, ArrowLeft: -1, ArrowUp: -1, PageUp: -1 }[event.key];
  if (event.key === "n") document.body.classList.toggle("speaking");
  if (!by) return;
  event.preventDefault();
  const slides = [...document.querySelectorAll(".slide")];
  const tops = slides.map((slide) => Math.abs(slide.getBoundingClientRect().top));
  const here = tops.indexOf(Math.min(...tops));
  slides[Math.max(0, Math.min(slides.length - 1, here + by))].scrollIntoView();
});
