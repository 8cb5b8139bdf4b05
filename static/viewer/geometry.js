// Where things are: screen ↔ source pixels ↔ cells of a map. Pixel edges throughout: the first pixel spans 0 to 1.

const MIN_SHOWN = 0.1; // of the smaller of "fits" and 1:1, so that nobody loses the image
const MAX_ZOOM = 32; // CSS pixels a source pixel

/** What all panes look at: centre in source pixels, zoom in CSS pixels a source pixel; flip mirrors left and right. */
export class View {
  constructor(width, height) {
    Object.assign(this, { width, height, x: width / 2, y: height / 2, zoom: 1, flip: false, fitted: true });
  }

  /** The zoom at which the whole image fits into a pane. */
  fitZoom(pane) {
    return Math.max(1e-3, Math.min(pane.width / this.width, pane.height / this.height));
  }

  fit(pane) {
    Object.assign(this, { x: this.width / 2, y: this.height / 2, zoom: this.fitZoom(pane), fitted: true });
  }

  /** zoom, around a source point that stays where it is on the screen. */
  zoomTo(zoom, pane, around = this) {
    const lowest = MIN_SHOWN * Math.min(1, this.fitZoom(pane));
    const next = Math.min(MAX_ZOOM, Math.max(lowest, zoom));
    const share = this.zoom / next;
    this.x = around.x + (this.x - around.x) * share;
    this.y = around.y + (this.y - around.y) * share;
    Object.assign(this, { zoom: next, fitted: false });
    this.keepInside();
  }

  /** Moves the image by CSS pixels. */
  pan(dx, dy) {
    this.x -= (dx / this.zoom) * (this.flip ? -1 : 1);
    this.y -= dy / this.zoom;
    this.fitted = false;
    this.keepInside();
  }

  keepInside() {
    this.x = Math.min(this.width, Math.max(0, this.x));
    this.y = Math.min(this.height, Math.max(0, this.y));
  }

  /** source = css × a + b, for CSS pixels in whichever frame the pane is given. */
  toSource(pane, zoom = this.zoom) {
    const ax = (this.flip ? -1 : 1) / zoom;
    const ay = 1 / zoom;
    return {
      ax,
      bx: this.x - (pane.x + pane.width / 2) * ax,
      ay,
      by: this.y - (pane.y + pane.height / 2) * ay,
    };
  }
}

export const apply = (to, point) => ({ x: point.x * to.ax + to.bx, y: point.y * to.ay + to.by });
export const undo = (to, point) => ({ x: (point.x - to.bx) / to.ax, y: (point.y - to.by) / to.ay });

/** Source pixels → cells of the map's grid, cell centres at whole numbers: cell = source × a + b. */
export function toCell(maps) {
  const { size_px: side, scale_x: sx, scale_y: sy, offset_x: ox, offset_y: oy } = maps.inputMap;
  const ax = maps.columns / side / sx;
  const ay = maps.rows / side / sy;
  return { ax, bx: -ox * ax - 0.5, ay, by: -oy * ay - 0.5 };
}

/** The source point of a cell's centre. */
export const cellCentre = (maps, cell) => undo(toCell(maps), { x: cell.column, y: cell.row });

/** A finding's value at a source point, bilinear between cell centres; null where the network did not look. */
export function valueAt(maps, finding, point) {
  const at = apply(toCell(maps), point);
  if (at.x < -0.5 || at.y < -0.5 || at.x > maps.columns - 0.5 || at.y > maps.rows - 0.5) return null;
  const x = Math.min(maps.columns - 1, Math.max(0, at.x));
  const y = Math.min(maps.rows - 1, Math.max(0, at.y));
  const [left, top] = [Math.floor(x), Math.floor(y)];
  const [right, bottom] = [Math.min(maps.columns - 1, left + 1), Math.min(maps.rows - 1, top + 1)];
  const start = finding * maps.rows * maps.columns;
  const cell = (row, column) => maps.values[start + row * maps.columns + column];
  const above = cell(top, left) + (cell(top, right) - cell(top, left)) * (x - left);
  const below = cell(bottom, left) + (cell(bottom, right) - cell(bottom, left)) * (x - left);
  return above + (below - above) * (y - top);
}

/** The length between two source points: {px, mm or null}. spacing: mm a source pixel, or null. */
export function lengthOf(from, to, spacing) {
  const [dx, dy] = [to.x - from.x, to.y - from.y];
  return { px: Math.hypot(dx, dy), mm: spacing && Math.hypot(dx * spacing.x, dy * spacing.y) };
}
