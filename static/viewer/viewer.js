// One state for all panes, and one frame drawn from it.

import { Canvas2DRenderer } from "./canvas2d.js";
import { PALETTES } from "./colours.js";
import { View, apply, cellCentre, lengthOf, valueAt } from "./geometry.js";
import { loadMaps, loadPixels } from "./load.js";
import { Marks } from "./marks.js";
import { loadSettings, saveSettings } from "./settings.js";
import { WebGLRenderer } from "./webgl.js";
import { fileValue, pixelAt, presets } from "./windows.js";
import * as words from "./words.js";

export const MODES = ["heat", "contour", "both"];
const ALONE = "radiograph"; // the layout without any map
export const SCALES = ["shared", "own"];
const ZOOM_STEP = 1.25;
const LENS = { side: 192, share: 0.55, zoom: 3 }; // CSS pixels, at most this share of a pane

export class Viewer {
  /** root: the section with the panes. data: what app/web/panes.py says of them. */
  constructor(root, data) {
    // bare: grey first, on every page; how the maps look is kept, that they were shown is not
    Object.assign(this, { root, data, tool: "window", inverted: false, peeking: false, bare: true, spots: false });
    this.settings = loadSettings();
    if (!MODES.includes(this.settings.mode)) this.settings.mode = MODES[0];
    this.scale = root.dataset.scale;
    this.finding = data.findings.findIndex((one) => one.name === root.dataset.chosen);
    this.stage = root.querySelector("[data-stage]");
    this.panes = [...root.querySelectorAll("[data-pane]")].map((figure) => this.pane(figure));
    this.notes = root.closest(".review").querySelectorAll("[data-scale-note]");
    this.maps = new Map();
    this.line = null; // {from, to, done}: the length being measured
    this.cursor = null; // {pane, point, drawn: whether to show it in the other panes}
    this.look_ = null;
    this.listeners = [];
    this.watch = new ResizeObserver(() => this.resized());
  }

  pane(figure) {
    const view = figure.querySelector("[data-view]");
    const index = this.data.maps.findIndex(
      (map) => map.role === figure.dataset.role && map.layer === figure.dataset.layer,
    );
    return { figure, view, key: index < 0 ? null : index, marks: null, rect: null };
  }

  /** Called after every change, for controls that mirror the state. */
  onChange(listener) {
    this.listeners.push(listener);
  }

  async load() {
    this.message("Loading the radiograph…");
    this.canvas = document.createElement("canvas");
    this.canvas.className = "screen";
    this.canvas.setAttribute("aria-hidden", "true");
    this.renderer = this.makeRenderer();
    const limit = Math.min(4096, this.renderer.largest);
    const [image] = await Promise.all([
      loadPixels(`${this.data.pixels}&longest_px=${limit}`),
      this.loadAllMaps(this.data.maps.find((map) => map.layer === "middle").name, this.data.method),
    ]);
    this.image = image;
    this.look_ = new View(image.width, image.height);
    this.presets = presets(image);
    this.setPreset(0);
    this.renderer.setImage(image);
    for (const pane of this.panes) pane.marks = new Marks(pane.view);
    this.stage.prepend(this.canvas);
    this.root.dataset.live = this.renderer instanceof WebGLRenderer ? "webgl" : "canvas";
    this.arrange();
    this.watch.observe(this.stage);
    this.resized();
    this.message("");
  }

  makeRenderer() {
    try {
      return new WebGLRenderer(this.canvas, () => this.change());
    } catch {
      const canvas = document.createElement("canvas"); // one that was asked for WebGL gives no other context
      canvas.className = "screen";
      canvas.setAttribute("aria-hidden", "true");
      this.canvas = canvas;
      return new Canvas2DRenderer(canvas);
    }
  }

  /** The maps of all panes at this stage and by this method, in place of those that are there. */
  async loadAllMaps(middle, method) {
    const query = method === "grad-cam" ? "" : `?method=${encodeURIComponent(method)}`;
    const loaded = await Promise.all(
      this.data.maps.map((map) => {
        const layer = map.layer === "last" ? "last" : middle;
        return loadMaps(`${map.base}/${layer}${query}`);
      }),
    );
    loaded.forEach((maps, index) => {
      this.maps.set(index, maps);
      this.renderer.setMaps(index, maps);
    });
    if (this.look_) this.change();
  }

  /** Shows the server's pictures instead, and says why. */
  fall(reason) {
    this.root.dataset.live = "pictures";
    this.canvas?.remove();
    this.stage.dataset.count = 4;
    for (const { view, key } of this.panes) {
      const picture = new Image();
      picture.src = key === null ? this.root.dataset.radiograph : this.data.maps[key].src;
      picture.alt = view.closest("figure").querySelector("figcaption").innerText;
      view.append(picture);
    }
    this.message(reason);
  }

  message(text) {
    this.root.querySelector("[data-message]").textContent = text;
  }

  // Layout

  get visible() {
    return this.panes.filter((pane) => !pane.figure.hidden);
  }

  get size() {
    return this.visible[0].rect;
  }

  resized() {
    const frame = this.stage.getBoundingClientRect();
    for (const pane of this.visible) {
      const box = pane.view.getBoundingClientRect();
      pane.rect = { x: box.left - frame.left, y: box.top - frame.top, width: box.width, height: box.height };
    }
    this.frame = { width: frame.width, height: frame.height };
    if (this.look_?.fitted) this.look_.fit(this.size);
    this.change();
  }

  /** layout: an option of the layout control: which panes are seen. */
  setLayout(layout) {
    if (layout !== ALONE) this.set({ layout });
    this.showMaps(layout !== ALONE);
  }

  /** The maps, or the radiograph alone. */
  showMaps(shown) {
    this.bare = !shown;
    this.arrange();
  }

  /** mode: how the maps are drawn, or `off`: the radiograph alone. */
  setMode(mode) {
    if (mode !== "off") this.set({ mode });
    this.showMaps(mode !== "off");
  }

  arrange() {
    const options = [...this.root.querySelectorAll("[data-layout] option")];
    if (!this.layouts.includes(this.settings.layout)) [this.settings.layout] = this.layouts;
    const { dataset } = options.find((one) => one.value === (this.bare ? ALONE : this.settings.layout));
    const names = dataset.panes.split(" ");
    for (const { figure } of this.panes) figure.hidden = !names.includes(figure.dataset.pane);
    this.stage.dataset.count = this.visible.length;
    this.cursor = null; // it was in a pane that may be gone
    if (this.frame) this.resized();
    this.change();
  }

  toggleSingle(pane) {
    if (this.bare) return;
    const single = this.visible.length === 1;
    this.setLayout(single ? this.before || "all" : pane.figure.dataset.pane);
    if (!single) return;
    this.before = "";
  }

  // State

  look(move) {
    if (!this.look_) return;
    move(this.look_, this.size);
    this.change();
  }

  setTool(tool) {
    this.tool = tool;
    this.stage.dataset.tool = tool;
    if (tool !== "measure") this.line = this.line?.done ? this.line : null;
    this.change();
  }

  set(settings) {
    if (settings.layout && settings.layout !== this.settings.layout) this.before = this.settings.layout;
    Object.assign(this.settings, settings);
    saveSettings(this.settings);
    this.change();
  }

  nudge(name, by) {
    this.set({ [name]: Math.round(Math.min(1, Math.max(0, this.settings[name] + by)) * 100) / 100 });
  }

  setFinding(index) {
    this.finding = index;
    this.change();
  }

  /** Frames around what flags point at, also where no map is shown. */
  showSpots(shown) {
    this.spots = shown;
    this.change();
  }

  /** spots: what flags point at by finding and role, once a test has found it. */
  setSpots(spots) {
    for (const { name, readings } of this.data.findings) {
      for (const [role, reading] of Object.entries(readings)) reading.regions = spots[name]?.[role] ?? [];
    }
    this.change();
  }

  setScale(scale) {
    this.scale = scale;
    const address = new URL(location.href);
    address.searchParams.set("scale", scale);
    history.replaceState(history.state, "", address);
    this.change();
  }

  setPreset(index) {
    this.preset = index;
    const { centre, width } = this.presets[index];
    this.window = { centre, width };
    this.change();
  }

  /** centre, width: sent values. */
  setWindow(centre, width) {
    this.preset = -1;
    this.window = {
      centre: Math.min(this.image.max, Math.max(0, centre)),
      width: Math.min(2 * this.image.max, Math.max(1, width)),
    };
    this.change();
  }

  dragWindow(dx, dy) {
    const step = Math.max(1, this.window.width) / 250;
    this.setWindow(this.window.centre + dy * step, this.window.width + dx * step);
  }

  peek(peeking) {
    if (this.peeking === peeking) return;
    this.peeking = peeking;
    this.change();
  }

  act(name) {
    const next = (all, one) => all[(all.indexOf(one) + 1) % all.length];
    const ratio = window.devicePixelRatio || 1;
    const acts = {
      invert: () => (this.inverted = !this.inverted),
      flip: () => this.look((look) => (look.flip = !look.flip)),
      "zoom-in": () => this.look((look, size) => look.zoomTo(look.zoom * ZOOM_STEP, size)),
      "zoom-out": () => this.look((look, size) => look.zoomTo(look.zoom / ZOOM_STEP, size)),
      fit: () => this.look((look, size) => look.fit(size)),
      one: () => this.look((look, size) => look.zoomTo(1 / ratio, size)),
      left: () => this.look((look) => look.pan(64, 0)),
      right: () => this.look((look) => look.pan(-64, 0)),
      up: () => this.look((look) => look.pan(0, 64)),
      down: () => this.look((look) => look.pan(0, -64)),
      clear: () => (this.line = null),
      maps: () => this.showMaps(this.bare),
      "next-mode": () => this.setMode(this.bare ? this.settings.mode : next(MODES, this.settings.mode)),
      "next-palette": () => this.set({ palette: next(PALETTES, this.settings.palette) }),
      "next-scale": () => this.setScale(next(SCALES, this.scale)),
      "next-layout": () => this.setLayout(this.bare ? this.settings.layout : next(this.layouts, this.settings.layout)),
    };
    acts[name]();
    this.change();
  }

  /** Those with maps. */
  get layouts() {
    const options = [...this.root.querySelectorAll("[data-layout] option")];
    return options.map((option) => option.value).filter((layout) => layout !== ALONE);
  }

  // Pointing

  sourceAt(pane, at) {
    return apply(this.look_.toSource({ x: 0, y: 0, width: pane.rect.width, height: pane.rect.height }), at);
  }

  /** at: CSS pixels from the pane's corner, or null when the pointer has left. */
  hover(pane, at) {
    if (!this.look_ || !pane.rect) return;
    this.cursor = at && { pane, point: this.sourceAt(pane, at), drawn: true };
    if (this.cursor && this.line && !this.line.done) this.line.to = this.cursor.point;
    this.change();
  }

  moveCursor(dx, dy) {
    const step = Math.max(1, 2 / this.look_.zoom);
    const from = this.cursor?.point ?? { x: this.look_.x, y: this.look_.y };
    const point = {
      x: Math.min(this.image.width, Math.max(0, from.x + dx * step * (this.look_.flip ? -1 : 1))),
      y: Math.min(this.image.height, Math.max(0, from.y + dy * step)),
    };
    this.cursor = { pane: this.cursor?.pane ?? this.visible[0], point, drawn: true, byKey: true };
    if (this.line && !this.line.done) this.line.to = point;
    this.change();
  }

  measureAtCursor() {
    this.measure(this.cursor?.point ?? { x: this.look_.x, y: this.look_.y });
  }

  /** The first point of a length, or its second. */
  measure(point) {
    if (this.line && !this.line.done) Object.assign(this.line, { to: point, done: true });
    else this.line = { from: point, to: point, done: false };
    this.change();
  }

  get length() {
    return this.line && lengthOf(this.line.from, this.line.to, this.image.spacing);
  }

  // Drawing

  /** The value of the hottest colour in a pane. */
  ceiling(key) {
    const peak = (index) => this.maps.get(index).peaks[this.finding].value;
    if (this.scale === "own") return peak(key);
    const { layer } = this.data.maps[key];
    return Math.max(...this.data.maps.map((map, index) => (map.layer === layer ? peak(index) : 0)));
  }

  /** What is seen of the overlay now. */
  get mode() {
    return this.peeking || this.bare ? "off" : this.settings.mode;
  }

  peakInWords() {
    const index = this.data.maps.findIndex((map) => map.role === "candidate" && map.layer === "middle");
    return index < 0 || !this.maps.has(index) ? "" : words.peak(this.maps.get(index), this.finding);
  }

  change() {
    if (this.pending) return;
    this.pending = requestAnimationFrame(() => {
      this.pending = 0;
      this.draw();
    });
  }

  draw() {
    if (!this.image || !this.frame) return;
    const ratio = window.devicePixelRatio || 1;
    const { mode, settings, window: grey } = this;
    const overlay = { mode, opacity: settings.opacity, threshold: settings.threshold, palette: settings.palette };
    const views = this.visible.map((pane) => ({
      rect: pane.rect,
      toSource: snapped(this.look_.toSource(pane.rect), ratio),
      key: pane.key,
      finding: this.finding,
      ceiling: pane.key === null ? 0 : this.ceiling(pane.key),
    }));
    const lenses = this.visible.map((pane, i) => this.lens(pane, views[i]));
    this.renderer.draw({
      ...this.frame,
      ratio,
      window: { low: grey.centre - grey.width / 2, width: grey.width },
      inverted: this.inverted,
      overlay,
      views: [...views, ...lenses.filter(Boolean)],
    });
    this.visible.forEach((pane, i) => this.drawMarks(pane, lenses[i]));
    this.root.dataset.drawn = Number(this.root.dataset.drawn || 0) + 1;
    for (const listener of this.listeners) listener(this);
  }

  /** The magnified view around the cursor, or null. */
  lens(pane, view) {
    if (this.tool !== "magnify" || !this.cursor) return null;
    const { point } = this.cursor;
    const at = { x: (point.x - view.toSource.bx) / view.toSource.ax, y: (point.y - view.toSource.by) / view.toSource.ay };
    const side = Math.min(LENS.side, LENS.share * Math.min(pane.rect.width, pane.rect.height));
    const clamp = (value, low, high) => Math.min(high, Math.max(low, value));
    const rect = {
      x: clamp(at.x - side / 2, pane.rect.x, pane.rect.x + pane.rect.width - side),
      y: clamp(at.y - side / 2, pane.rect.y, pane.rect.y + pane.rect.height - side),
      width: side,
      height: side,
    };
    const [ax, ay] = [view.toSource.ax / LENS.zoom, view.toSource.ay / LENS.zoom];
    return { ...view, rect, toSource: { ax, bx: point.x - at.x * ax, ay, by: point.y - at.y * ay } };
  }

  /** What the flags of the finding point at in a pane, in source pixels; on the radiograph alone, of both readings. */
  regions(pane) {
    const readings = Object.entries(this.data.findings[this.finding].readings);
    const role = pane.key === null ? null : this.data.maps[pane.key].role;
    return readings.flatMap(([of, reading]) => (role === null || of === role ? reading.regions : []));
  }

  drawMarks(pane, lens) {
    const own = { x: 0, y: 0, width: pane.rect.width, height: pane.rect.height };
    const maps = pane.key === null ? null : this.maps.get(pane.key);
    const peak = maps?.peaks[this.finding];
    const shown = this.mode !== "off";
    pane.marks.draw(this.look_.toSource(own), {
      peak: shown && peak?.value > 0 ? cellCentre(maps, peak) : null,
      regions: shown || this.spots ? this.regions(pane) : [],
      cursor: this.cursor && !lens && (this.cursor.byKey || this.cursor.pane !== pane) ? this.cursor.point : null,
      length: this.line,
      label: this.length ? words.length(this.length, this.image.atDetector) : "",
      lens: lens && { ...lens.rect, x: lens.rect.x - pane.rect.x, y: lens.rect.y - pane.rect.y },
    });
  }

  /** What is under the cursor, in words; empty without one. */
  get readout() {
    if (!this.cursor || !this.image) return "";
    const { pane, point } = this.cursor;
    const value = pixelAt(this.image, point);
    if (value === null) return "Outside the image";
    const maps = pane.key === null ? null : this.maps.get(pane.key);
    const heat = maps && words.heat(valueAt(maps, this.finding, point), this.ceiling(pane.key));
    return words.readout(point, fileValue(this.image, value), heat);
  }

  destroy() {
    this.watch.disconnect();
    cancelAnimationFrame(this.pending);
    this.renderer?.destroy();
  }
}

/** The same transform, moved so that source pixel edges lie on device pixels at 1:1 and its multiples. */
function snapped(to, ratio) {
  const corner = (a, b) => Math.round((-b / a) * ratio) / ratio;
  return { ...to, bx: -corner(to.ax, to.bx) * to.ax, by: -corner(to.ay, to.by) * to.ay };
}
