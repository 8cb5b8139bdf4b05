// The findings table: choosing one changes all maps at once, without a request; the address keeps the choice.

export class Findings {
  constructor(root, viewer) {
    this.links = [...root.querySelectorAll("[data-finding]")];
    this.root = root;
    this.live = root.querySelector("[data-live]");
    this.viewer = viewer;
    this.links.forEach((link, index) => {
      link.addEventListener("click", (event) => {
        if (event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
        event.preventDefault();
        this.choose(index);
      });
      link.addEventListener("keydown", (event) => {
        const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
        if (!step) return;
        event.preventDefault();
        this.step(step, true);
      });
    });
  }

  get cards() {
    return [...this.root.querySelectorAll("[data-flag]")];
  }

  step(by, focus = false) {
    const next = (this.viewer.finding + by + this.links.length) % this.links.length;
    this.choose(next);
    if (focus) this.links[next].focus();
  }

  choose(index) {
    const { name, text, readings } = this.viewer.data.findings[index];
    this.links.forEach((link, i) => {
      link.toggleAttribute("aria-current", false);
      if (i === index) link.setAttribute("aria-current", "true");
      link.closest("tr").classList.toggle("chosen", i === index);
    });
    for (const card of this.cards) card.hidden = card.dataset.flag !== name;
    const address = new URL(location.href);
    address.searchParams.set("finding", name);
    address.hash = "";
    history.replaceState(history.state, "", address);
    this.viewer.setFinding(index);
    const roles = ["reference", "candidate"].filter((role) => readings[role]);
    const said = roles.map((role) => `${role} ${readings[role].said}`);
    this.live.textContent = `${text}: ${said.join("; ")}. ${this.viewer.peakInWords()}`;
  }
}
