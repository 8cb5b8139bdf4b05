// Buttons, fields and lists around the panes: they say what the state is, and change it.

import { table } from "./colours.js";
import { fileValue, sentValue } from "./windows.js";
import { figures, length } from "./words.js";

export function bindControls(viewer, page) {
  const { root } = viewer;
  const one = (selector) => root.querySelector(selector);
  const all = (selector) => [...root.querySelectorAll(selector)];

  for (const button of all("[data-act]")) button.addEventListener("click", () => viewer.act(button.dataset.act));
  for (const button of all("[data-tool]")) {
    if (button.tagName === "BUTTON") button.addEventListener("click", () => viewer.setTool(button.dataset.tool));
  }
  for (const button of all("[data-mode]")) {
    button.addEventListener("click", () => viewer.setMode(button.dataset.mode));
  }
  one("[data-layout]").addEventListener("change", (event) => viewer.setLayout(event.target.value));
  one("[data-palette]").addEventListener("change", (event) => viewer.set({ palette: event.target.value }));
  one("[data-scale-choice]").addEventListener("change", (event) => viewer.setScale(event.target.value));
  for (const name of ["opacity", "threshold"]) {
    one(`[data-range=${name}]`).addEventListener("input", (event) => viewer.set({ [name]: event.target.value / 100 }));
  }
  bindWindow(viewer, one);
  bindPeek(viewer, one("[data-peek]"));
  bindSheet(viewer, page);
  bindInvitation(viewer, page.querySelector("[data-show-maps]"));
  bindMapsForm(viewer, page.querySelector("[data-maps-form]"));
  for (const pop of all("details.pop")) closeWhenLeft(pop);
  viewer.onChange(() => mirror(viewer, one, all));
}

function bindWindow(viewer, one) {
  const [centre, width] = [one("[data-centre]"), one("[data-width]")];
  const [centreSlider, widthSlider] = [one("[data-centre-slider]"), one("[data-width-slider]")];
  const typed = () => {
    const { image } = viewer;
    if (centre.value === "" || !(width.value > 0)) return;
    viewer.setWindow(sentValue(image, Number(centre.value)), Number(width.value) / Math.abs(image.slope));
  };
  centre.addEventListener("change", typed);
  width.addEventListener("change", typed);
  const slid = () => viewer.setWindow(Number(centreSlider.value), Number(widthSlider.value));
  centreSlider.addEventListener("input", slid);
  widthSlider.addEventListener("input", slid);
  one("[data-preset]").addEventListener("change", (event) => viewer.setPreset(Number(event.target.value)));
}

/** Held, the overlay is gone; let go, it is back. */
function bindPeek(viewer, button) {
  button.addEventListener("pointerdown", () => viewer.peek(true));
  for (const end of ["pointerup", "pointerleave", "pointercancel", "blur", "keyup"]) {
    button.addEventListener(end, () => viewer.peek(false));
  }
  button.addEventListener("keydown", (event) => {
    if (event.key === " " || event.key === "Enter") viewer.peek(true);
  });
}

function bindSheet(viewer, page) {
  const sheet = page.querySelector("[data-sheet]");
  const keys = sheet.querySelector("[data-keys]");
  keys.checked = viewer.settings.keys;
  keys.addEventListener("change", () => viewer.set({ keys: keys.checked }));
  page.querySelector("[data-open-sheet]").addEventListener("click", () => sheet.showModal());
}

/** Beside what the checkpoints report, as long as nobody has looked where they looked. */
function bindInvitation(viewer, button) {
  button.addEventListener("click", () => {
    viewer.showMaps(true);
    viewer.stage.focus();
  });
  viewer.onChange(() => (button.hidden = !viewer.bare));
}

/** Another layer or method: the one thing that has to be asked for. */
function bindMapsForm(viewer, form) {
  if (!form) return;
  const load = async (event) => {
    event.preventDefault();
    const { layer, method } = Object.fromEntries(new FormData(form));
    viewer.message("Computing the maps…");
    try {
      await viewer.loadAllMaps(layer, method);
      const address = new URL(location.href);
      address.searchParams.set("layer", layer);
      address.searchParams.set("method", method);
      history.replaceState(history.state, "", address);
      viewer.message("");
    } catch (error) {
      viewer.message(error.message);
    }
  };
  form.addEventListener("submit", load);
  form.addEventListener("change", load);
}

function closeWhenLeft(pop) {
  document.addEventListener("pointerdown", (event) => {
    if (!pop.contains(event.target)) pop.open = false;
  });
  pop.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    pop.open = false;
    pop.querySelector("summary").focus();
  });
}

function mirror(viewer, one, all) {
  const { settings, image, window: grey, look_: look } = viewer;
  const pressed = (button, on) => button.setAttribute("aria-pressed", String(on));
  for (const button of all("button[data-tool]")) pressed(button, button.dataset.tool === viewer.tool);
  const mode = viewer.bare ? "off" : settings.mode;
  for (const button of all("[data-mode]")) pressed(button, button.dataset.mode === mode);
  pressed(one("[data-act=invert]"), viewer.inverted);
  pressed(one("[data-act=flip]"), look.flip);
  text(one("[data-maps-word]"), viewer.bare ? "Show maps" : "Hide maps");
  one("[data-act=maps]").classList.toggle("asks", viewer.bare);
  value(one("[data-layout]"), viewer.bare ? "radiograph" : settings.layout);
  value(one("[data-palette]"), settings.palette);
  value(one("[data-scale-choice]"), viewer.scale);
  for (const name of ["opacity", "threshold"]) {
    value(one(`[data-range=${name}]`), Math.round(settings[name] * 100));
    text(one(`[data-shown=${name}]`), `${Math.round(settings[name] * 100)} %`);
  }
  listPresets(viewer, one("[data-preset]"));
  value(one("[data-preset]"), viewer.preset);
  slide(one("[data-centre-slider]"), grey.centre, image.max, fileValue(image, grey.centre));
  slide(one("[data-width-slider]"), grey.width, image.max, grey.width * Math.abs(image.slope));
  value(one("[data-centre]"), Number(fileValue(image, grey.centre).toFixed(1)));
  value(one("[data-width]"), Number((grey.width * Math.abs(image.slope)).toFixed(1)));
  text(one("[data-zoom]"), `${Math.round(look.zoom * (window.devicePixelRatio || 1) * 100)} %`);
  text(one("[data-readout]"), viewer.readout);
  text(one("[data-length]"), viewer.length ? `Length ${length(viewer.length, image.atDetector)}` : "");
  one("[data-act=clear]").hidden = !viewer.line;
  const spoken = one("[data-spoken]");
  if (viewer.cursor?.byKey) text(spoken, [viewer.readout, one("[data-length]").textContent].filter(Boolean).join(". "));
  for (const note of viewer.notes) note.hidden = note.dataset.scaleNote !== viewer.scale;
  mirrorPanes(viewer);
}

function mirrorPanes(viewer) {
  const finding = viewer.data.findings[viewer.finding];
  text(viewer.root.querySelector("[data-chosen-text]"), finding.text);
  for (const { figure, key } of viewer.panes) {
    if (key === null) continue;
    const maps = viewer.maps.get(key);
    const { value: peak } = maps.peaks[viewer.finding];
    text(figure.querySelector("[data-said]"), finding.readings[viewer.data.maps[key].role].said);
    text(figure.querySelector("[data-layer-name]"), maps.name);
    text(figure.querySelector("[data-peak]"), peak > 0 ? `peak ${figures(peak)}` : "nothing raises it");
    text(figure.querySelector("[data-ceiling]"), figures(viewer.ceiling(key)));
    paintBar(figure.querySelector("[data-bar]"), viewer.settings.palette);
  }
}

function paintBar(bar, palette) {
  if (bar.dataset.palette === palette) return;
  bar.dataset.palette = palette;
  const colours = table(palette);
  const stops = [];
  for (let i = 0; i < 256; i += 15) stops.push(`rgb(${colours.slice(i * 4, i * 4 + 3).join(" ")})`);
  bar.style.background = `linear-gradient(to right, ${stops.join(", ")})`;
}

function listPresets(viewer, list) {
  if (list.options.length > 1) return;
  let group = null;
  viewer.presets.forEach((preset, index) => {
    if (group?.label !== preset.group) {
      group = document.createElement("optgroup");
      group.label = preset.group;
      list.append(group);
    }
    group.append(new Option(preset.name, index));
  });
}

function slide(slider, at, most, spoken) {
  slider.max = most;
  value(slider, at);
  slider.setAttribute("aria-valuetext", String(Math.round(spoken)));
}

function text(element, content) {
  if (element.textContent !== content) element.textContent = content;
}

/** Not while somebody is typing in it. */
function value(field, content) {
  const typing = field === document.activeElement && field.type === "number";
  if (!typing && field.value !== String(content)) field.value = content;
}
