// The flags' cards: frames on demand, and what changes on the page when a test has come to its end.

/** Keeps cards and panes in step: the server puts new cards in while a test is being made. */
export function bindFlags(viewer, page) {
  const shown = () => page.querySelector("#_flags");
  const buttons = () => [...page.querySelectorAll("[data-show-spot]")];

  const mirror = () => {
    for (const button of buttons()) {
      button.hidden = false;
      button.setAttribute("aria-pressed", String(viewer.spots));
    }
  };
  page.addEventListener("click", (event) => {
    if (!event.target.closest("[data-show-spot]")) return;
    viewer.showSpots(!viewer.spots);
    mirror();
  });
  // The reader may have chosen another finding than the server knows of.
  page.addEventListener("htmx:afterSwap", (event) => {
    if (event.detail.target.id !== "_flags") return;
    const { name } = viewer.data.findings[viewer.finding];
    for (const card of page.querySelectorAll("[data-flag]")) card.hidden = card.dataset.flag !== name;
    viewer.setSpots(JSON.parse(shown().dataset.spots));
    mirror();
  });
  mirror();
}
