"""The page in a real Chromium: upload, look, choose another finding."""

from __future__ import annotations

from pathlib import Path

from tests.app.browsing import browser_page, started_browser
from tests.app.conftest import png_bytes


def test_upload_and_compare(live_url: str, tmp_path: Path) -> None:
    radiograph = tmp_path / "chest.png"
    radiograph.write_bytes(png_bytes(size=(256, 256)))
    with started_browser() as browser, browser_page(browser) as page:
        from playwright.sync_api import expect

        expect.set_options(timeout=30_000)
        page.goto(live_url)
        page.get_by_label("Radiographs").set_input_files(radiograph)
        page.get_by_role("button", name="Upload and read").click()
        page.get_by_role("link", name="Open", exact=True).click()
        expect(page.get_by_text("The candidate reports Atelectasis").first).to_be_visible()
        viewer = page.locator("[data-viewer]")
        expect(viewer).to_have_attribute("data-live", "webgl")
        expect(page.locator("figure.pane:visible")).to_have_count(1)  # the radiograph alone
        page.get_by_role("button", name="Show maps").click()
        expect(page.locator("figure.pane:visible")).to_have_count(4)
        # Nothing but maps and marks changes: a mark on the page outlives the choice.
        page.evaluate("document.body.dataset.mark = 'still here'")
        page.get_by_role("link", name="Effusion").click()
        expect(page.get_by_role("heading", name="What raises Effusion")).to_be_attached()
        assert page.evaluate("document.body.dataset.mark") == "still here"
        assert "finding=Effusion" in page.url
        page.get_by_label("Colour scale").select_option("own")
        expect(page.get_by_text("stretched to its own peak")).to_be_visible()
        assert "scale=own" in page.url
        page.reload()
        expect(page.get_by_role("heading", name="What raises Effusion")).to_be_attached()
        expect(viewer).to_have_attribute("data-live", "webgl")
        page.get_by_role("link", name="Worklist").click()
        expect(page.get_by_role("link", name="chest.png")).to_be_visible()
