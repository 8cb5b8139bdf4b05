"""The flag's card in a real Chromium: a test comes to its end while somebody reads, and nothing else moves."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from app.jobs.child import run_attempt
from app.main import create_app
from app.settings import Settings
from tests.app.browsing import browser_page, started_browser
from tests.app.calibrations import by_hand, put
from tests.app.conftest import png_bytes, served


@contextmanager
def serving(settings: Settings, checkpoints: Path, monkeypatch: Any) -> Iterator[tuple[Any, str, Any]]:
    """A server's services, the address of a study whose full tests are asked for, and a browser."""
    put(settings.data_dir, checkpoints / "backdoored", by_hand(checkpoints / "backdoored", threshold=-1e6))
    made: list[Any] = []
    monkeypatch.setattr("tests.app.conftest.create_app", lambda *given: made.append(create_app(*given)) or made[-1])
    with served(settings) as url, started_browser() as browser:
        held = made[0].state.services
        study = held.studies.receive(png_bytes(1), "a.png").study_id
        held.analyses.analyse(study)
        held._test_waiting()  # as the background does once it has nothing to read
        yield held, f"{url}/studies/{study}?finding=Atelectasis", browser


def test_a_card_follows_by_itself_and_keeps_the_readers_place(
    settings: Settings, checkpoints: Path, monkeypatch: Any
) -> None:
    with serving(settings, checkpoints, monkeypatch) as (held, address, browser), browser_page(browser) as page:
        from playwright.sync_api import expect

        expect.set_options(timeout=60_000)
        page.goto(address)
        card = page.locator("article.flag:visible")
        expect(card).to_contain_text("Being tested")
        expect(page.locator("[data-viewer]")).to_have_attribute("data-live", re.compile("webgl|canvas"))
        page.locator("#finding-Effusion").click()  # the server is not told
        expect(card).to_contain_text("Effusion")
        page.locator("#comment").fill("I am in the middle of")
        page.locator("#comment").focus()
        while job := held.jobs.claim():
            run_attempt(held.jobs, job.id, job.attempt, settings)
        expect(card.locator(".word.candidate, .word.suspicious, .word.causal")).to_be_visible()
        expect(card).to_have_count(1)
        assert card.get_attribute("data-flag") == "Effusion"
        assert page.locator("#comment").input_value() == "I am in the middle of"
        assert page.evaluate("document.activeElement.id") == "comment"
        expect(card.locator(".proof .shot > img")).to_have_count(4)
        card.locator("[data-show-spot]").click()
        expect(page.locator("[data-pane=radiograph] .region").last).to_have_attribute("d", re.compile("^M.*Z$"))
        card.locator("[data-show-spot]").click()
        expect(page.locator("[data-pane=radiograph] .region").last).to_have_attribute("data-off", "")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        card.locator("summary").click()
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_without_script_a_reload_shows_it(settings: Settings, checkpoints: Path, monkeypatch: Any) -> None:
    with (
        serving(settings, checkpoints, monkeypatch) as (held, address, browser),
        browser_page(browser, java_script_enabled=False) as page,
    ):
        page.goto(address)
        again = page.locator("article.flag:not([hidden]) noscript a")
        assert page.get_by_text("Being tested").count() and again.text_content() == "Look again"
        while job := held.jobs.claim():
            run_attempt(held.jobs, job.id, job.attempt, settings)
        again.click()
        assert page.get_by_text("Being tested").count() == 0
        assert page.locator("article.flag:not([hidden]) .proof .shot > img").count() == 4
