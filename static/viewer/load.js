// Pixels and maps from the server, as typed arrays.

async function binary(url, signal) {
  const answer = await fetch(url, { headers: { Accept: "application/octet-stream" }, signal });
  if (!answer.ok) {
    const problem = await answer.json().catch(() => ({}));
    throw new Error(problem.detail || `The server answered ${answer.status}.`);
  }
  return [await answer.arrayBuffer(), answer.headers];
}

const numbers = (text) => (text ? text.split(",").map(Number) : null);

/**
 * The radiograph: {levels, width, height, scale, max, slope, intercept, windows, spacing, atDetector}.
 * levels: [{width, height, data: Uint16Array}], each half of the one before; width, height: of the source.
 * scale: source pixels for each of level 0; spacing: {x, y} in mm or null.
 */
export async function loadPixels(url, signal) {
  const [buffer, headers] = await binary(url, signal);
  const [height, width] = numbers(headers.get("Overread-Size"));
  const [sourceHeight, sourceWidth] = numbers(headers.get("Overread-Source-Size"));
  const [slope, intercept] = numbers(headers.get("Overread-Value-Scale"));
  const spacing = numbers(headers.get("Overread-Pixel-Spacing"));
  return {
    levels: pyramid({ width, height, data: uint16(buffer) }),
    width: sourceWidth,
    height: sourceHeight,
    scale: Number(headers.get("Overread-Scale")),
    max: Number(headers.get("Overread-Max-Value")),
    slope,
    intercept,
    windows: JSON.parse(headers.get("Overread-Windows") || "[]"),
    spacing: spacing && { y: spacing[0], x: spacing[1] },
    atDetector: headers.get("Overread-Spacing-At") === "detector",
  };
}

/** All findings' maps of one layer: {rows, columns, values: Float32Array, peaks: [{value, row, column}], name}. */
export async function loadMaps(url, signal) {
  const [buffer, headers] = await binary(url, signal);
  const [rows, columns] = numbers(headers.get("Overread-Grid"));
  const values = new Float32Array(buffer);
  const cells = rows * columns;
  const peaks = [];
  for (let start = 0; start < values.length; start += cells) {
    let best = 0;
    for (let i = 1; i < cells; i++) if (values[start + i] > values[start + best]) best = i;
    peaks.push({ value: values[start + best], row: Math.floor(best / columns), column: best % columns });
  }
  const inputMap = JSON.parse(headers.get("Overread-Input-Map"));
  return { rows, columns, values, peaks, inputMap, name: headers.get("Overread-Layer") };
}

function uint16(buffer) {
  const little = new Uint8Array(new Uint16Array([1]).buffer)[0] === 1;
  if (little) return new Uint16Array(buffer);
  const view = new DataView(buffer);
  return Uint16Array.from({ length: buffer.byteLength / 2 }, (_, i) => view.getUint16(i * 2, true));
}

/** Halves by means of 2×2 down to one that fits a thumbnail; an odd last row or column is left out, as in a mipmap. */
function pyramid(first) {
  const levels = [first];
  for (let at = first; Math.min(at.width, at.height) > 1 && Math.max(at.width, at.height) > 128; ) {
    const width = at.width >> 1;
    const height = at.height >> 1;
    const data = new Uint16Array(width * height);
    for (let y = 0; y < height; y++) {
      let above = 2 * y * at.width;
      for (let x = 0, to = y * width; x < width; x++, above += 2) {
        const below = above + at.width;
        data[to + x] = (at.data[above] + at.data[above + 1] + at.data[below] + at.data[below + 1] + 2) >> 2;
      }
    }
    at = { width, height, data };
    levels.push(at);
  }
  return levels;
}
