"""A reader's whole story in a real Chromium: upload, compare, window, measure, decide, read first, reload, export."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.settings import Settings
from tests.app.browsing import browser_page, started_browser
from tests.app.conftest import png_bytes, served

SIZES = [(1280, 800), (820, 1180)]


def uploaded(page: Any, url: str, file: Path) -> None:
    """Goes to the worklist, sends the file and opens what came of it."""
    page.goto(url)
    page.get_by_label("Radiographs").set_input_files(file)
    page.get_by_role("button", name="Upload and read").click()
    page.get_by_role("link", name="Open", exact=True).click()


def story(page: Any, url: str, first: Path, second: Path) -> dict[str, Any]:
    """Plays it with two radiographs that the server does not know yet; gives the first one's export."""
    from playwright.sync_api import expect

    viewer, panes = page.locator("[data-viewer]"), page.locator("figure.pane:visible")

    def says(words: str) -> None:
        expect(page.locator("#_history")).to_contain_text(words)

    # Upload and compare: grey first, then two checkpoints and two layers.
    uploaded(page, url, first)
    expect(viewer).to_have_attribute("data-live", "webgl")
    expect(panes).to_have_count(1)
    page.locator("body").press("o")
    expect(panes).to_have_count(4)

    # Window: dragging narrows it, the preset brings it back.
    width = page.locator("#width")
    whole = width.input_value()
    pane = page.locator("[data-pane=candidate-middle] [data-view]")
    pane.scroll_into_view_if_needed()
    box = pane.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 4, box["y"] + box["height"] / 2, steps=4)
    page.mouse.up()
    expect(width).not_to_have_value(whole)
    page.get_by_label("Window preset").select_option(label="Full range")
    expect(width).to_have_value(whole)

    # Measure.
    page.get_by_role("button", name="Measure").click()
    pane.click(position={"x": box["width"] * 0.3, "y": box["height"] * 0.5})
    pane.click(position={"x": box["width"] * 0.6, "y": box["height"] * 0.5})
    expect(page.locator("[data-length]")).to_have_text(re.compile(r"Length [\d.]+ (px|mm at the detector)"))

    # Decide, and find it again after a reload.
    page.get_by_label("Disagree", exact=True).check()
    page.get_by_label("Reason").select_option(index=1)
    page.get_by_label("Comment").fill("The map sits on a mark.")
    page.get_by_role("button", name="Record", exact=True).click()
    says("The map sits on a mark.")
    page.reload()
    expect(viewer).to_have_attribute("data-live", "webgl")
    says("The map sits on a mark.")

    # Read first: nothing of the checkpoints is on the page until the own reading is recorded.
    uploaded(page, url, second)
    expect(viewer).to_have_attribute("data-live", "webgl")
    page.get_by_role("button", name="Ask every reader of this study for an unaided reading first").click()
    expect(page.get_by_role("heading", name="What do you see?")).to_be_visible()
    expect(viewer).to_have_count(0)
    page.get_by_label("Effusion", exact=True).select_option("Effusion:present:probable")
    page.get_by_role("button", name="Record my reading and show the predictions").click()
    expect(page.get_by_role("table", name="What you saw unaided, and what the checkpoints say")).to_be_visible()
    page.reload()
    expect(viewer).to_have_attribute("data-live", "webgl")
    says("Effusion (probable)")

    # Export: the printable page with its images, and the same as JSON.
    page.get_by_role("link", name="Worklist").click()
    page.get_by_role("link", name=first.name).click()
    page.get_by_role("link", name="Print or export").click()
    expect(page.get_by_text("Research use, not for diagnosis").first).to_be_visible()
    pictures = page.locator("main img")
    for number in range(pictures.count()):
        expect(pictures.nth(number)).to_have_js_property("complete", True)
        assert pictures.nth(number).evaluate("one => one.naturalWidth") > 0
    with page.expect_download() as download:
        page.get_by_role("link", name="The same as JSON").click()
    out: dict[str, Any] = json.loads(download.value.path().read_text())
    return out


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with started_browser() as browser:
        from playwright.sync_api import expect

        expect.set_options(timeout=30_000)
        yield browser


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_the_whole_story(browser: Any, settings: Settings, tmp_path: Path, width: int, height: int) -> None:
    files = tmp_path / "first.png", tmp_path / "second.png"
    for number, file in enumerate(files):
        file.write_bytes(png_bytes(number, size=(256, 256)))
    with served(settings) as url, browser_page(browser, width=width, height=height, accept_downloads=True) as page:
        out = story(page, url, *files)
    assert out["chain"]["intact"] and [one["comment"] for one in out["entries"]] == ["The map sits on a mark."]
    assert len(out["analyses"]) == 2
