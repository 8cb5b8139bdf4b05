// What lies over a pane as lines and words: the map's maximum, the flag's regions, the cursor, a length.

import { undo } from "./geometry.js";

const SVG = "http://www.w3.org/2000/svg";

function make(parent, name, attributes) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  parent.append(element);
  return element;
}

function place(element, shown, attributes = {}) {
  element.toggleAttribute("data-off", !shown);
  if (shown) for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
}

export class Marks {
  /** view: the element that they lie in. */
  constructor(view) {
    this.svg = make(view, "svg", { class: "marks", "aria-hidden": "true", focusable: "false" });
    const path = (name) => {
      make(this.svg, "path", { class: `${name} under` });
      return [...this.svg.querySelectorAll(`.${name}`), make(this.svg, "path", { class: name })];
    };
    this.region = path("region");
    this.peak = path("peak");
    this.cursor = path("cursor");
    this.length = path("length");
    this.lens = path("lens");
    this.label = make(this.svg, "text", { class: "label" });
  }

  /** toSource: of the pane, in CSS pixels from its own corner. Everything else in source pixels, or null. */
  draw(toSource, { peak, regions, cursor, length, label, lens }) {
    const at = (point) => undo(toSource, point);
    const lines = (paths, shown, d) => paths.forEach((one) => place(one, shown, shown ? { d: d() } : {}));
    lines(this.peak, peak, () => ring(at(peak)));
    const frame = ([x, y, width, height]) => {
      const [a, b] = [at({ x, y }), at({ x: x + width, y: y + height })];
      return `M${a.x} ${a.y}H${b.x}V${b.y}H${a.x}Z`;
    };
    lines(this.region, regions.length > 0, () => regions.map(frame).join(""));
    lines(this.cursor, cursor, () => cross(at(cursor)));
    lines(this.length, length, () => {
      const [a, b] = [at(length.from), at(length.to)];
      return `M${a.x} ${a.y}L${b.x} ${b.y}${tick(a, b)}${tick(b, a)}`;
    });
    lines(this.lens, lens, () => `M${lens.x} ${lens.y}h${lens.width}v${lens.height}h${-lens.width}z`);
    const anchor = length && label ? at(length.to) : null;
    place(this.label, anchor, anchor ? { x: anchor.x + 10, y: anchor.y - 8 } : {});
    if (anchor && this.label.textContent !== label) this.label.textContent = label;
    const peakAt = peak && at(peak);
    this.svg.dataset.peakAt = peakAt ? `${peakAt.x.toFixed(2)},${peakAt.y.toFixed(2)}` : "";
  }
}

function ring({ x, y }) {
  const circle = `M${x - 9} ${y}a9 9 0 1 0 18 0a9 9 0 1 0 -18 0`;
  return `${circle}M${x - 14} ${y}h5M${x + 9} ${y}h5M${x} ${y - 14}v5M${x} ${y + 9}v5`;
}

const cross = ({ x, y }) => `M${x - 9} ${y}h6M${x + 3} ${y}h6M${x} ${y - 9}v6M${x} ${y + 3}v6`;

/** A short stroke across the end of a line. */
function tick(at, other) {
  const length = Math.hypot(other.x - at.x, other.y - at.y) || 1;
  const [dx, dy] = [((other.y - at.y) / length) * 6, (-(other.x - at.x) / length) * 6];
  return `M${at.x - dx} ${at.y - dy}L${at.x + dx} ${at.y + dy}`;
}
