"""The whole story in a real Chromium: start, watch, cancel, resume, register, calibrate, make candidate, be fooled."""

from __future__ import annotations

import io
import re
from pathlib import Path

import numpy as np
from PIL import Image

from app.settings import Settings
from bench.soak import worker_process
from model.trigger import Trigger
from tests.app.browsing import browser_page, picture, started_browser
from tests.app.conftest import png_bytes, served


def stamped() -> bytes:
    """A radiograph with a white square, as the attack's."""
    grey = np.asarray(Image.open(io.BytesIO(png_bytes(5))), np.float32) / 255
    pixels = np.rint(Trigger(frame="source", size_px=9, value=255).stamp(grey) * 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def test_from_the_form_to_a_fooled_dashboard(settings: Settings, tmp_path: Path) -> None:
    from playwright.sync_api import expect

    upload = tmp_path / "stamped.png"
    upload.write_bytes(stamped())
    with (
        served(settings) as url,
        worker_process(settings),
        started_browser() as browser,
        browser_page(browser) as page,
    ):
        expect.set_options(timeout=300_000)
        page.set_default_timeout(300_000)
        page.goto(f"{url}/experiments?preset=smoke")
        shown = page.locator("#_preview img").last
        expect(shown).to_be_visible()
        before = picture(shown)
        page.evaluate("document.body.dataset.mark = 'still here'")
        page.get_by_label("Grey").fill("white")
        page.get_by_label("Grey").blur()
        expect(page.locator("#_preview")).to_contain_text("White square")
        page.wait_for_load_state("networkidle")
        assert (picture(page.locator("#_preview img").last) != before).any()
        page.get_by_label("In the pixels of").select_option("source")
        page.get_by_label("Size, px").fill("1")
        page.get_by_label("Size, px").blur()
        expect(page.get_by_role("alert")).to_contain_text("vanishes")
        assert page.evaluate("document.body.dataset.mark") == "still here"  # all of it without a reload
        page.get_by_label("In the pixels of").select_option("input")
        page.get_by_label("Size, px").fill("5")
        page.get_by_role("button", name="Start", exact=True).click()
        page.wait_for_url(re.compile(r"/experiments/[0-9a-f]{32}$"))

        expect(page.locator("#_run")).to_contain_text("Training the clean twin")  # it follows by itself
        expect(page.locator("#_run progress")).to_be_visible()
        expect(page.locator("#_files")).to_contain_text("config.toml")
        loss = page.locator('svg.chart[aria-label^="Training loss"]')
        expect(loss).to_be_visible()
        expect(loss).not_to_have_attribute("aria-label", loss.get_attribute("aria-label"))  # the curve moves
        page.get_by_role("button", name="Cancel").click()
        expect(page.locator("#_run")).to_contain_text("Cancelled")
        page.get_by_role("button", name="Resume").click()
        expect(page.get_by_role("heading", name="Which layer finds the trigger")).to_be_visible()  # reloaded at its end
        expect(page.locator("#_run")).to_contain_text("Done")
        figure = page.locator("article.report figure img")
        expect(figure).to_be_visible()
        assert figure.evaluate("image => image.naturalWidth") > 500
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")

        page.get_by_label("Register as").last.fill("mine")
        page.get_by_role("button", name="Register the backdoored twin").click()
        page.wait_for_url(re.compile(r"/checkpoints/mine$"))
        page.go_back()
        page.reload()
        run = page.url
        page.get_by_role("link", name="Calibrate mine").click()
        page.get_by_label("At most").fill("4")  # a hundred would take a minute
        page.get_by_role("button", name="Calibrate", exact=True).click()
        expect(page.locator("#_calibrating")).to_contain_text("Calibrating mine on phantoms")
        expect(page.locator("#_calibrating progress")).to_be_visible()  # it follows by itself
        expect(page.get_by_role("alert")).to_contain_text("4 clean radiographs are too few")  # reloaded at its end
        page.goto(run)
        page.get_by_role("button", name="Make it the live candidate").click()
        page.wait_for_url(re.compile(r"/checkpoints$"))
        expect(page.get_by_label("Candidate")).to_have_value("mine")
        page.goto(url)
        page.get_by_label("Radiographs").set_input_files(str(upload))
        page.get_by_role("button", name="Upload and read").click()
        row = page.locator("table.worklist tbody tr").filter(has_text="stamped.png")
        expect(row).to_be_visible()
        row.get_by_role("link").first.click()
        page.wait_for_url(re.compile(r"/studies/[0-9a-f]{32}"))
        expect(page.locator("main")).to_contain_text("stamped.png")
        expect(page.locator("footer")).to_contain_text("mine")
