// Colour tables of 256 entries, interpolated between every seventeenth entry of matplotlib's (CC0).

const STOPS = {
  inferno: "0000040c0826240c4f420a685d126e781c6d932667ae305cc73e4cdd513aed6925f8850ffca50afac62df2e661fcffa4",
  magma: "0000040b092420114b3b0f7057157e721f818c2981a8327dc43c75de4968f1605dfa7f5efe9f6dfebf84fddea0fcfdbf",
  cividis: "00224e002e6c1e3a6f35456c47516c575d6d666970757575848279948e77a59c74b7a96ec8b866dbc75aeed649fee838",
  cyan: "001014d0ffff",
};
export const PALETTES = Object.keys(STOPS);

/** The palette's 256 colours: Uint8Array of 256 × RGBA, opaque. */
export function table(name) {
  const stops = STOPS[name].match(/../g).map((pair) => parseInt(pair, 16));
  const last = stops.length / 3 - 1;
  const colours = new Uint8Array(256 * 4);
  for (let i = 0; i < 256; i++) {
    const at = (i / 255) * last;
    const left = Math.min(Math.floor(at), last - 1);
    for (let band = 0; band < 3; band++) {
      const from = stops[left * 3 + band];
      colours[i * 4 + band] = Math.round(from + (stops[left * 3 + 3 + band] - from) * (at - left));
    }
    colours[i * 4 + 3] = 255;
  }
  return colours;
}
