"""The page in a real Chromium: upload, look, choose another finding."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.app.conftest import png_bytes

ARGUMENTS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]


def test_upload_and_compare(live_url: str, tmp_path: Path) -> None:
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("there is no chromium on this machine")
    from playwright.sync_api import expect, sync_playwright

    radiograph = tmp_path / "chest.png"
    radiograph.write_bytes(png_bytes(size=(256, 256)))
    complaints: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS)
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.on("console", lambda message: complaints.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("requestfailed", lambda request: complaints.append(f"failed: {request.url}"))
        page.goto(live_url)
        page.get_by_label("Radiographs").set_input_files(radiograph)
        page.get_by_role("button", name="Upload and read").click()
        page.get_by_role("link", name="Open", exact=True).click()
        expect(page.get_by_text("The candidate reports Atelectasis")).to_be_visible()
        maps = page.locator("figure.pane img")
        expect(maps).to_have_count(4)
        loaded = (
            "() => [...document.images].filter(i => i.complete && i.naturalWidth).length === document.images.length"
        )
        page.wait_for_function(loaded)
        # Nothing but the maps and the table is exchanged: a mark on the page outlives the change.
        page.evaluate("document.body.dataset.mark = 'still here'")
        page.get_by_role("link", name="Effusion").click()
        expect(page.get_by_role("heading", name="What raises Effusion")).to_be_attached()
        page.wait_for_function(loaded)
        assert all("Effusion" in (one.get_attribute("alt") or "") for one in maps.all())
        assert page.evaluate("document.body.dataset.mark") == "still here"
        assert "finding=Effusion" in page.url
        page.get_by_label("Scale").select_option("own")
        expect(page.get_by_text("stretched to its own peak")).to_be_visible()
        assert "scale=own" in page.url
        page.wait_for_function(loaded)
        page.reload()
        expect(page.get_by_role("heading", name="What raises Effusion")).to_be_attached()
        page.get_by_role("link", name="Worklist").click()
        expect(page.get_by_role("link", name="chest.png")).to_be_visible()
        browser.close()
    assert complaints == []
