// Single keys follow the links that carry them in data-key. They rest while one types, and where the person has switched
// single-key shortcuts off (WCAG 2.1.4).

const SWITCH = "overread.shortcuts";

export function bindKeys(root) {
  root.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.repeat || isTyping(event.target) || areOff()) return;
    const link = root.querySelector(`a[data-key="${CSS.escape(event.key)}"]`);
    if (!link) return;
    event.preventDefault();
    link.click();
  });
}

function isTyping(target) {
  return target instanceof Element && target.closest("input, select, textarea, [contenteditable]") !== null;
}

function areOff() {
  try {
    return localStorage.getItem(SWITCH) === "off";
  } catch {
    return false; // storage is forbidden: the keys stay on
  }
}
