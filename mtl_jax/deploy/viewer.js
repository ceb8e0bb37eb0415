// A drag on a picture moves the border between photo and predictions; a click asks for the values.
// `element` holds the viewer of the latest photo, `trigger` sends an event to the program, which
// answers by calling `element.tell`.
const CLICK = 4; // pixels of movement that a click may have
let start = null;

const viewer = () => element.querySelector(".viewer");
const percent = (part) => `${(100 * Math.min(1, Math.max(0, part))).toFixed(2)}%`;

function place(stage, event) {
  const box = stage.getBoundingClientRect();
  return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
}

function wipe(part) {
  viewer().style.setProperty("--wipe", percent(part));
  viewer().querySelector(".wipe input").value = 100 * part;
}

element.tell = (words) =>
  viewer()
    ?.querySelectorAll("output")
    .forEach((output, index) => (output.textContent = words?.[index] ?? ""));

element.addEventListener("input", (event) => wipe(event.target.value / 100));
element.addEventListener("pointerdown", (event) => {
  const stage = event.target.closest(".stage");
  start = stage && { stage, x: event.clientX, dragged: false };
  if (stage) stage.setPointerCapture(event.pointerId);
});
element.addEventListener("pointermove", (event) => {
  if (!start) return;
  start.dragged ||= Math.abs(event.clientX - start.x) > CLICK;
  if (start.dragged) wipe(place(start.stage, event)[0]);
});
element.addEventListener("pointercancel", () => (start = null));
element.addEventListener("pointerup", (event) => {
  if (start && !start.dragged) {
    const [x, y] = place(start.stage, event);
    viewer().classList.add("marked");
    viewer().style.setProperty("--x", percent(x));
    viewer().style.setProperty("--y", percent(y));
    trigger("click", { x, y });
  }
  start = null;
});
