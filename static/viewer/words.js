// Numbers in words, for people.

const STRENGTHS = [
  [0.66, "strong"],
  [0.33, "moderate"],
  [0.1, "weak"],
  [0, "faint"],
];

/** Three significant figures. */
export const figures = (value) => (value === 0 ? "0" : Number(value.toPrecision(3)).toString());

/** A map's value, with its share of the scale. value: null where the network did not look. */
export function heat(value, ceiling) {
  if (value === null) return "outside what the network saw";
  if (value <= 0 || ceiling <= 0) return "map 0, nothing raises it";
  const share = Math.min(1, value / ceiling);
  const [, strength] = STRENGTHS.find(([least]) => share >= least);
  const percent = share < 0.005 ? "less than 1" : Math.round(share * 100);
  return `map ${figures(value)}, ${percent} % of the scale: ${strength}`;
}

export function readout(point, value, overlay) {
  const place = `x ${Math.floor(point.x)}, y ${Math.floor(point.y)}`;
  return [place, `value ${Number(value.toFixed(2))}`, overlay].filter(Boolean).join(" · ");
}

export function length({ px, mm }, atDetector) {
  if (mm === null) return `${px.toFixed(1)} px`;
  return `${mm.toFixed(1)} mm${atDetector ? " at the detector" : ""}`;
}

/** Where a map is hottest. */
export function peak(maps, finding) {
  const { value, row, column } = maps.peaks[finding];
  if (value <= 0) return "Nothing in the candidate's map raises it.";
  const vertical = third(row, maps.rows, ["upper", "middle", "lower"]);
  const horizontal = third(column, maps.columns, ["left", "centre", "right"]);
  return `The candidate's map is strongest in the ${vertical} ${horizontal} of the image, ${figures(value)}.`;
}

const third = (cell, cells, names) => names[Math.min(2, Math.floor(((cell + 0.5) / cells) * 3))];
