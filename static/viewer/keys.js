// The keyboard: arrows and Enter while the panes have the focus; single keys anywhere, unless they are switched off.

const STEP_PX = 48;
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const PEEK = "x";

export function bindKeys(viewer, findings, sheet) {
  const acts = {
    w: () => viewer.setTool("window"),
    p: () => viewer.setTool("pan"),
    m: () => viewer.setTool("measure"),
    g: () => viewer.setTool("magnify"),
    i: () => viewer.act("invert"),
    h: () => viewer.act("flip"),
    "+": () => viewer.act("zoom-in"),
    "=": () => viewer.act("zoom-in"),
    "-": () => viewer.act("zoom-out"),
    f: () => viewer.act("fit"),
    1: () => viewer.act("one"),
    o: () => viewer.act("maps"),
    v: () => viewer.act("next-mode"),
    "[": () => viewer.nudge("opacity", -0.1),
    "]": () => viewer.nudge("opacity", 0.1),
    ",": () => viewer.nudge("threshold", -0.05),
    ".": () => viewer.nudge("threshold", 0.05),
    c: () => viewer.act("next-palette"),
    s: () => viewer.act("next-scale"),
    l: () => viewer.act("next-layout"),
    j: () => findings.step(1),
    k: () => findings.step(-1),
    "?": () => sheet.showModal(),
  };

  document.addEventListener("keydown", (event) => {
    if (!viewer.settings.keys || !isSingle(event)) return;
    const key = event.key.toLowerCase();
    if (key === PEEK) viewer.peek(true);
    else if (acts[key]) acts[key]();
    else return;
    event.preventDefault();
  });
  document.addEventListener("keyup", (event) => {
    if (event.key.toLowerCase() === PEEK) viewer.peek(false);
  });
  window.addEventListener("blur", () => viewer.peek(false));

  viewer.stage.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    const points = viewer.tool === "measure" || viewer.tool === "magnify";
    const arrow = ARROWS[event.key];
    const far = event.shiftKey ? 5 : 1;
    if (arrow && points) viewer.moveCursor(arrow[0] * far, arrow[1] * far);
    else if (arrow) viewer.look((look) => look.pan(-arrow[0] * STEP_PX * far, -arrow[1] * STEP_PX * far));
    else if (event.key === "Enter" && viewer.tool === "measure") viewer.measureAtCursor();
    else if (event.key === "Escape") viewer.act("clear");
    else return;
    event.preventDefault();
  });
}

/** Whether this is a bare key, not one that somebody types into a field. */
function isSingle(event) {
  if (event.ctrlKey || event.altKey || event.metaKey || event.defaultPrevented) return false;
  if (document.querySelector("dialog[open]")) return false;
  return !event.target.closest?.("input:not([type=range], [type=checkbox], [type=radio]), select, textarea");
}
