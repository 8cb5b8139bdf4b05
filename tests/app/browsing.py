"""A real Chromium for the tests that need one, and how to look at what it shows."""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from PIL import Image

ARGUMENTS = [
    *("--headless", "--no-sandbox", "--disable-quic", "--no-first-run", "--enable-unsafe-swiftshader"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]
_OF_THE_DRIVER = "GL Driver Message"  # that taking a screenshot is slow
_LEFT = "net::ERR_ABORTED"  # what was on its way when the page was left


def launched(browser_type: Any, *arguments: str) -> Any:
    """A Chromium; skips where there is none."""
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("there is no chromium on this machine")
    return browser_type.launch(executable_path=chromium, args=[*ARGUMENTS, *arguments])


@contextmanager
def started_browser() -> Iterator[Any]:
    """A Chromium with which several tests can work, each in a context of its own."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = launched(playwright.chromium)
        yield browser
        browser.close()


@contextmanager
def browser_page(
    browser: Any,
    *,
    width: int = 1280,
    height: int = 800,
    complaints: bool = True,
    expected: tuple[str, ...] = (),
    **context: Any,
) -> Iterator[Any]:
    """A page of a fresh profile. Fails on a console message, an error of a script and a failed request.

    `expected` are parts of complaints that belong to the test: Chromium logs every answer with a status of an error.

    Wait with `expect`, not with `wait_for_function`: that polls by eval, which the pages' CSP forbids, so it passes
    only where its condition holds at the first look.
    """
    seen: list[str] = []
    profile = browser.new_context(viewport={"width": width, "height": height}, **context)
    profile.set_default_timeout(60_000)
    page = profile.new_page()
    page.on("console", lambda message: seen.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: seen.append(str(error)))
    page.on("requestfailed", lambda request: seen.append(f"failed: {request.url}: {request.failure}"))
    yield page
    profile.close()
    if complaints:
        foreseen = (_OF_THE_DRIVER, *expected)
        assert [one for one in seen if not one.endswith(_LEFT) and not any(part in one for part in foreseen)] == []


def picture(locator: Any) -> np.ndarray:
    """H×W×3 uint8: what an element looks like, a CSS pixel each at a device scale of 1."""
    return np.asarray(Image.open(io.BytesIO(locator.screenshot(animations="disabled"))).convert("RGB"))
