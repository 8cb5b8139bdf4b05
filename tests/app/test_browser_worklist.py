"""The worklist in a real Chromium: drop several files, claim one, go to the next by its key."""

from __future__ import annotations

import base64
import re

from tests.app.browsing import browser_page, started_browser
from tests.app.conftest import png_bytes

_DROP = """(files) => {
  const carried = new DataTransfer();
  for (const [name, text] of files) {
    carried.items.add(new File([Uint8Array.from(atob(text), (c) => c.charCodeAt(0))], name));
  }
  for (const type of ["dragenter", "dragover", "drop"]) {
    document.body.dispatchEvent(new DragEvent(type, { dataTransfer: carried, bubbles: true, cancelable: true }));
    if (type === "dragenter") window.shown = !document.getElementById("drop").hidden;
  }
}"""


def test_drop_claim_and_next(live_url: str) -> None:
    files = {"one.png": png_bytes(1), "two.png": png_bytes(2), "notes.png": b"hello", "again.png": png_bytes(1)}
    with started_browser() as browser, browser_page(browser, height=900, expected=("status of 415",)) as page:
        from playwright.sync_api import expect

        expect.set_options(timeout=60_000)
        page.goto(live_url)
        page.evaluate(_DROP, [[name, base64.b64encode(data).decode()] for name, data in files.items()])
        assert page.evaluate("window.shown") is True
        expect(page.get_by_text("1 file was not taken, of 4.")).to_be_visible()
        expect(page.get_by_text("neither PNG nor JPEG nor DICOM")).to_be_visible()
        expect(page.get_by_text("Open the study that it belongs to")).to_be_visible()
        rows = page.locator("table.worklist tbody tr")
        expect(rows).to_have_count(2)
        expect(rows.first).to_contain_text("Atelectasis")  # the list follows by itself
        expect(rows.last).to_contain_text("Atelectasis")
        newest = rows.first.get_by_role("link").inner_text()
        page.evaluate("document.body.dataset.mark = 'still here'")
        rows.first.get_by_role("button", name="Claim").click()
        expect(rows.first).to_contain_text("in progress")
        expect(rows.first.get_by_role("button", name="Release")).to_be_visible()
        assert page.evaluate("document.body.dataset.mark") == "still here"
        page.get_by_label("Search").press_sequentially("n")  # a key in a field is a letter
        assert page.evaluate("document.body.dataset.mark") == "still here"
        page.get_by_label("Search").fill("")
        page.get_by_label("Status").select_option("in_progress")
        expect(rows).to_have_count(1)
        assert "status=in_progress" in page.url
        page.get_by_label("Status").select_option("")
        expect(rows).to_have_count(2)
        page.locator("#main").focus()
        page.keyboard.press("n")
        page.wait_for_url(re.compile(r"/studies/[0-9a-f]{32}"))
        other = ({"one.png", "two.png"} - {newest}).pop()
        expect(page.get_by_role("heading", level=1)).to_contain_text(other)
