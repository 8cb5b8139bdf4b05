// The review page comes alive: without this everything is there as pictures, links and forms.

import { bindControls } from "./controls.js";
import { Findings } from "./findings.js";
import { bindFlags } from "./flags.js";
import { bindKeys } from "./keys.js";
import { bindPointer } from "./pointer.js";
import { Viewer } from "./viewer.js";

async function begin(root) {
  const viewer = new Viewer(root, JSON.parse(root.dataset.viewer));
  const page = root.closest(".review");
  const findings = new Findings(page, viewer);
  bindControls(viewer, page);
  bindFlags(viewer, page);
  bindPointer(viewer);
  bindKeys(viewer, findings, page.querySelector("[data-sheet]"));
  window.addEventListener("pagehide", (event) => event.persisted || viewer.destroy());
  try {
    await viewer.load();
  } catch (error) {
    viewer.fall(`${error.message} The pictures are the server's.`);
  }
}

for (const root of document.querySelectorAll("[data-viewer]")) begin(root);
