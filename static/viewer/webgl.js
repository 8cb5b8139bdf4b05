// The WebGL2 renderer: one canvas under all panes, one R16UI texture with its halves, one R32F array a layer.

import { table } from "./colours.js";
import { toCell } from "./geometry.js";
import { FRAGMENT, VERTEX } from "./shaders.js";

const MODES = { off: 0, heat: 1, contour: 2, both: 3 };
const UNIFORMS = [
  ...["image", "maps", "palette", "screenHeight", "toSource", "sourceSize", "texel", "level", "window", "inverted"],
  ...["mode", "toCell", "cells", "finding", "ceiling", "opacity", "threshold", "stroke"],
];

export class WebGLRenderer {
  /** canvas: has no context yet. onRestored: called when a lost context has come back and must be drawn again. */
  constructor(canvas, onRestored) {
    this.canvas = canvas;
    this.gl = canvas.getContext("webgl2", { alpha: false, antialias: false, depth: false, stencil: false });
    if (!this.gl) throw new Error("no WebGL2");
    this.kept = { image: null, maps: new Map(), palette: "" };
    this.listeners = new AbortController();
    const { signal } = this.listeners;
    canvas.addEventListener("webglcontextlost", (event) => event.preventDefault(), { signal });
    canvas.addEventListener(
      "webglcontextrestored",
      () => {
        this.start();
        onRestored();
      },
      { signal },
    );
    this.start();
  }

  get largest() {
    return this.gl.getParameter(this.gl.MAX_TEXTURE_SIZE);
  }

  start() {
    const { gl } = this;
    this.program = link(gl);
    this.at = Object.fromEntries(UNIFORMS.map((name) => [name, gl.getUniformLocation(this.program, name)]));
    this.textures = { image: null, maps: new Map(), palette: gl.createTexture() };
    gl.useProgram(this.program);
    gl.bindVertexArray(gl.createVertexArray());
    gl.enable(gl.SCISSOR_TEST);
    gl.pixelStorei(gl.UNPACK_ALIGNMENT, 1);
    gl.uniform1i(this.at.image, 0);
    gl.uniform1i(this.at.maps, 1);
    gl.uniform1i(this.at.palette, 2);
    const { image, maps, palette } = this.kept;
    this.kept.palette = "";
    if (image) this.setImage(image);
    for (const [key, one] of maps) this.setMaps(key, one);
    this.setPalette(palette || "inferno");
    if (!maps.size) this.setMaps("", { rows: 1, columns: 1, values: new Float32Array(1) });
  }

  setImage(image) {
    const { gl } = this;
    if (this.textures.image) gl.deleteTexture(this.textures.image);
    this.kept.image = image;
    const [first] = image.levels;
    this.textures.image = gl.createTexture();
    gl.activeTexture(gl.TEXTURE0);
    gl.bindTexture(gl.TEXTURE_2D, this.textures.image);
    gl.texStorage2D(gl.TEXTURE_2D, image.levels.length, gl.R16UI, first.width, first.height);
    image.levels.forEach(({ width, height, data }, level) => {
      gl.texSubImage2D(gl.TEXTURE_2D, level, 0, 0, width, height, gl.RED_INTEGER, gl.UNSIGNED_SHORT, data);
    });
    sampleExactly(gl, gl.TEXTURE_2D, gl.NEAREST_MIPMAP_NEAREST);
  }

  setMaps(key, maps) {
    const { gl } = this;
    if (this.textures.maps.has(key)) gl.deleteTexture(this.textures.maps.get(key));
    this.kept.maps.set(key, maps);
    const texture = gl.createTexture();
    const layers = maps.values.length / (maps.rows * maps.columns);
    gl.activeTexture(gl.TEXTURE1);
    gl.bindTexture(gl.TEXTURE_2D_ARRAY, texture);
    gl.texStorage3D(gl.TEXTURE_2D_ARRAY, 1, gl.R32F, maps.columns, maps.rows, layers);
    const size = [maps.columns, maps.rows, layers];
    gl.texSubImage3D(gl.TEXTURE_2D_ARRAY, 0, 0, 0, 0, ...size, gl.RED, gl.FLOAT, maps.values);
    sampleExactly(gl, gl.TEXTURE_2D_ARRAY, gl.NEAREST);
    this.textures.maps.set(key, texture);
  }

  setPalette(name) {
    if (this.kept.palette === name) return;
    const { gl } = this;
    this.kept.palette = name;
    gl.activeTexture(gl.TEXTURE2);
    gl.bindTexture(gl.TEXTURE_2D, this.textures.palette);
    gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA8, 256, 1, 0, gl.RGBA, gl.UNSIGNED_BYTE, table(name));
    sampleExactly(gl, gl.TEXTURE_2D, gl.NEAREST);
  }

  /**
   * frame: {width, height, ratio, window: {low, width}, inverted, overlay, views}; sizes and places in CSS pixels.
   * overlay: {mode, opacity, threshold, palette}. views: [{rect, toSource, key or null, finding, ceiling}].
   */
  draw(frame) {
    const { gl, at, canvas } = this;
    const image = this.kept.image;
    if (gl.isContextLost() || !image) return;
    const [width, height] = [Math.round(frame.width * frame.ratio), Math.round(frame.height * frame.ratio)];
    if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
    this.setPalette(frame.overlay.palette);
    gl.viewport(0, 0, width, height);
    gl.scissor(0, 0, width, height);
    gl.clearColor(0, 0, 0, 1);
    gl.clear(gl.COLOR_BUFFER_BIT);
    gl.uniform1f(at.screenHeight, height);
    gl.uniform2f(at.sourceSize, image.width, image.height);
    gl.uniform2f(at.window, frame.window.low, frame.window.width);
    gl.uniform1i(at.inverted, frame.inverted ? 1 : 0);
    gl.uniform1f(at.opacity, frame.overlay.opacity);
    gl.uniform1f(at.threshold, frame.overlay.threshold);
    gl.uniform1f(at.stroke, 1.1 * frame.ratio);
    for (const view of frame.views) this.drawView(view, frame, height);
  }

  drawView(view, frame, height) {
    const { gl, at } = this;
    const image = this.kept.image;
    const [left, top] = [Math.round(view.rect.x * frame.ratio), Math.round(view.rect.y * frame.ratio)];
    const right = Math.round((view.rect.x + view.rect.width) * frame.ratio);
    const bottom = Math.round((view.rect.y + view.rect.height) * frame.ratio);
    gl.scissor(left, height - bottom, Math.max(0, right - left), Math.max(0, bottom - top));
    const { ax, bx, ay, by } = view.toSource;
    gl.uniform4f(at.toSource, ax / frame.ratio, ay / frame.ratio, bx, by);
    const reduced = Math.floor(Math.log2(Math.abs(ax) / frame.ratio / image.scale));
    const level = Math.min(image.levels.length - 1, Math.max(0, reduced));
    gl.uniform1i(at.level, level);
    gl.uniform1f(at.texel, image.scale * 2 ** level);
    const maps = view.key === null ? null : this.kept.maps.get(view.key);
    gl.uniform1i(at.mode, maps ? MODES[frame.overlay.mode] : 0);
    if (maps) {
      const cell = toCell(maps);
      gl.activeTexture(gl.TEXTURE1);
      gl.bindTexture(gl.TEXTURE_2D_ARRAY, this.textures.maps.get(view.key));
      gl.uniform4f(at.toCell, cell.ax, cell.ay, cell.bx, cell.by);
      gl.uniform2f(at.cells, maps.columns, maps.rows);
      gl.uniform1i(at.finding, view.finding);
      gl.uniform1f(at.ceiling, view.ceiling);
    }
    gl.drawArrays(gl.TRIANGLES, 0, 3);
  }

  destroy() {
    this.listeners.abort();
    this.gl.getExtension("WEBGL_lose_context")?.loseContext();
  }
}

/** Integer and float textures cannot be filtered by the hardware everywhere: the shader does it. */
function sampleExactly(gl, target, minified) {
  gl.texParameteri(target, gl.TEXTURE_MIN_FILTER, minified);
  gl.texParameteri(target, gl.TEXTURE_MAG_FILTER, gl.NEAREST);
  gl.texParameteri(target, gl.TEXTURE_WRAP_S, gl.CLAMP_TO_EDGE);
  gl.texParameteri(target, gl.TEXTURE_WRAP_T, gl.CLAMP_TO_EDGE);
}

function link(gl) {
  const program = gl.createProgram();
  for (const [kind, source] of [
    [gl.VERTEX_SHADER, VERTEX],
    [gl.FRAGMENT_SHADER, FRAGMENT],
  ]) {
    const shader = gl.createShader(kind);
    gl.shaderSource(shader, source);
    gl.compileShader(shader);
    gl.attachShader(program, shader);
    gl.deleteShader(shader);
  }
  gl.linkProgram(program);
  if (!gl.getProgramParameter(program, gl.LINK_STATUS) && !gl.isContextLost()) {
    throw new Error(`The shaders do not link: ${gl.getProgramInfoLog(program)}`);
  }
  return program;
}
