// Where there is no WebGL2: the same frames on a 2D canvas, windowed here, from a smaller image.

import { table } from "./colours.js";
import { valueAt } from "./geometry.js";

const LONGEST = 768;
const KEPT = 6; // drawn images: four panes, the bare radiograph, and one to change to

export class Canvas2DRenderer {
  constructor(canvas) {
    this.canvas = canvas;
    this.context = canvas.getContext("2d", { alpha: false });
    if (!this.context) throw new Error("no 2D canvas");
    this.maps = new Map();
    this.drawn = new Map();
    this.largest = 2048;
  }

  setImage(image) {
    this.image = image;
    const fits = image.levels.findIndex((level) => Math.max(level.width, level.height) <= LONGEST);
    const index = fits < 0 ? image.levels.length - 1 : fits;
    this.level = image.levels[index];
    this.texel = image.scale * 2 ** index;
    this.drawn.clear();
  }

  setMaps(key, maps) {
    this.maps.set(key, maps);
    this.drawn.clear();
  }

  draw(frame) {
    if (!this.image) return;
    const { canvas, context } = this;
    const [width, height] = [Math.round(frame.width * frame.ratio), Math.round(frame.height * frame.ratio)];
    if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.fillStyle = "#000";
    context.fillRect(0, 0, width, height);
    for (const view of frame.views) {
      const { ax, bx, ay, by } = view.toSource;
      context.save();
      context.setTransform(frame.ratio, 0, 0, frame.ratio, 0, 0);
      context.beginPath();
      context.rect(view.rect.x, view.rect.y, view.rect.width, view.rect.height);
      context.clip();
      context.transform(this.texel / ax, 0, 0, this.texel / ay, -bx / ax, -by / ay);
      context.drawImage(this.painted(view, frame), 0, 0);
      context.restore();
    }
  }

  /** The image with this view's map over it, in its own pixels; kept until something about it changes. */
  painted(view, frame) {
    const { window, inverted, overlay } = frame;
    const shown = view.key !== null && overlay.mode !== "off" && view.ceiling > 0;
    const over = shown ? [view.key, view.finding, view.ceiling, ...Object.values(overlay)] : [];
    const key = [window.low, window.width, inverted, ...over].join("|");
    if (!this.drawn.has(key)) {
      this.drawn.set(key, this.paint(frame, shown ? view : null));
      if (this.drawn.size > KEPT) this.drawn.delete(this.drawn.keys().next().value);
    }
    return this.drawn.get(key);
  }

  paint({ window, inverted, overlay }, view) {
    const { width, height, data } = this.level;
    const pixels = new ImageData(width, height);
    const shares = view && this.shares(view);
    const colours = table(overlay.palette);
    for (let i = 0; i < data.length; i++) {
      let grey = Math.min(1, Math.max(0, (data[i] - window.low) / window.width)) * 255;
      if (inverted) grey = 255 - grey;
      const tint = shares && weight(shares, i, width, overlay);
      const entry = tint ? Math.round(tint.share * 255) * 4 : 0;
      for (let band = 0; band < 3; band++) {
        pixels.data[i * 4 + band] = tint ? grey + (colours[entry + band] - grey) * tint.opacity : grey;
      }
      pixels.data[i * 4 + 3] = 255;
    }
    const canvas = document.createElement("canvas");
    Object.assign(canvas, { width, height });
    canvas.getContext("2d").putImageData(pixels, 0, 0);
    return canvas;
  }

  shares(view) {
    const { width, height } = this.level;
    const maps = this.maps.get(view.key);
    const shares = new Float32Array(width * height);
    for (let y = 0, i = 0; y < height; y++) {
      for (let x = 0; x < width; x++, i++) {
        const value = valueAt(maps, view.finding, { x: (x + 0.5) * this.texel, y: (y + 0.5) * this.texel });
        shares[i] = value === null ? -1 : Math.min(1, value / view.ceiling);
      }
    }
    return shares;
  }

  destroy() {
    this.drawn.clear();
  }
}

/** How much of which colour lies over pixel i: {share, opacity}, or null for none. */
function weight(shares, i, width, { mode, opacity, threshold }) {
  const share = shares[i];
  if (share < 0) return null;
  if (mode !== "heat") {
    const next = [shares[i + 1] ?? share, shares[i + width] ?? share];
    const lines = [0.25, 0.5, 0.75].filter((line) => line > threshold).concat(threshold > 0 ? threshold : []);
    const line = lines.find((at) => next.some((other) => share >= at !== other >= at));
    if (line !== undefined) return { share: 0.45 + 0.55 * line, opacity: 1 };
  }
  return mode !== "contour" && share >= threshold ? { share, opacity: opacity * share } : null;
}
