// Windows to choose from: the file's own, and some taken from the greys of this image.

const ENOUGH = 512; // pixels on the longer side are enough for percentiles
const OF_IMAGE = [
  ["Everything in it", 0.001, 0.999],
  ["Lung", 0.01, 0.6],
  ["Soft tissue", 0.3, 0.97],
  ["Bone", 0.55, 0.999],
];

/** [{group, name, centre, width}], the one to open with first. A radiograph has no Hounsfield units to go by. */
export function presets(image) {
  const full = { group: "Fixed", name: "Full range", centre: image.max / 2, width: image.max };
  const own = image.windows.map((one) => ({ group: "From the file", ...one }));
  const { low, at } = percentiles(image);
  const derived = OF_IMAGE.map(([name, from, to]) => {
    const [black, white] = [at(from), at(to)];
    const width = Math.max(1, white - black);
    return { group: "From this image's greys", name, centre: black + width / 2, width };
  });
  return [...own, full, ...(low ? derived : [])];
}

/** at(share): the value that this share of the pixels lies below, without the blackest and whitest there are. */
function percentiles(image) {
  const level = image.levels.find((one) => Math.max(one.width, one.height) <= ENOUGH) ?? image.levels.at(-1);
  const counts = new Uint32Array(image.max + 1);
  for (const value of level.data) counts[value]++;
  const first = counts.findIndex((count) => count > 0);
  const last = counts.findLastIndex((count) => count > 0);
  let total = 0;
  for (let value = first + 1; value < last; value++) total += counts[value];
  const at = (share) => {
    let below = 0;
    for (let value = first + 1; value < last; value++) {
      below += counts[value];
      if (below >= share * total) return value;
    }
    return last;
  };
  return { low: total, at };
}

/** A source point's value, averaged as it was sent; null outside. */
export function pixelAt(image, point) {
  if (point.x < 0 || point.y < 0 || point.x >= image.width || point.y >= image.height) return null;
  const { width, data } = image.levels[0];
  return data[Math.floor(point.y / image.scale) * width + Math.floor(point.x / image.scale)];
}

/** The file's own value of a sent one. */
export const fileValue = (image, value) => value * image.slope + image.intercept;
export const sentValue = (image, value) => (value - image.intercept) / image.slope;
