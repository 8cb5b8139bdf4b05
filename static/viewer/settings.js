// How a reader likes the viewer; kept in this browser.

const KEY = "overread.viewer";
const DEFAULTS = { mode: "heat", opacity: 0.6, threshold: 0, palette: "inferno", layout: "all", keys: true };

export function loadSettings() {
  try {
    const kept = JSON.parse(localStorage.getItem(KEY) || "{}");
    return Object.fromEntries(
      Object.entries(DEFAULTS).map(([name, value]) => [name, typeof kept[name] === typeof value ? kept[name] : value]),
    );
  } catch {
    return { ...DEFAULTS };
  }
}

export function saveSettings(settings) {
  try {
    localStorage.setItem(KEY, JSON.stringify(settings));
  } catch {
    // a browser that keeps nothing still shows everything
  }
}
