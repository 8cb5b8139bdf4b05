"""The viewer in a real Chromium, its pixels read from screenshots and compared with numbers worked out here."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from PIL import Image

from app.settings import Settings
from model.checkpoint import Card, save_checkpoint
from model.findings import FINDINGS
from model.network import build_network
from model.preprocess import Preprocessing
from tests.app.browsing import browser_page, launched, picture, started_browser
from tests.app.conftest import served
from tests.model.test_radiograph import dicom

WIDTH, HEIGHT = 320, 240
# Value of each 40×40 block along a row of the test image, dark to bright, with steps that 8 bits cannot tell apart.
STEPS = [0, 500, 1000, 1016, 3000, 5000, 40000, 65535]
CROP = 0.6
HOTTEST = (252, 255, 164)  # inferno's last colour


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pair whose preprocessing crops, so that its maps cover a part of the radiograph only."""
    folder = tmp_path_factory.mktemp("cropping")
    for seed, name in enumerate(("clean", "backdoored")):
        network = build_network(seed + 11)
        with torch.no_grad():
            network.classifier.bias.fill_(-1.0)
        points = dict.fromkeys(FINDINGS, 0.5)
        save_checkpoint(folder / name, Card(name, name, Preprocessing(size_px=128, centre_crop=CROP), points), network)
    return folder


@pytest.fixture(scope="module")
def live_url(checkpoints: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """One server for all tests here: they change nothing."""
    data = tmp_path_factory.mktemp("data")
    with served(Settings(data_dir=data, bundled_dir=checkpoints, device="cpu", samples=False)) as url:
        yield url


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with started_browser() as browser:
        from playwright.sync_api import expect

        expect.set_options(timeout=30_000)
        yield browser


def stepped() -> bytes:
    """16 bits, 320×240: the steps along each row, with a little noise in the lower half."""
    values = np.repeat(np.array(STEPS, np.uint16), 40)[None].repeat(HEIGHT, 0)
    values[200:] = np.random.default_rng(0).integers(0, 65536, (40, WIDTH))
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, "PNG")
    return buffer.getvalue()


def uploaded(live_url: str, data: bytes, name: str = "steps.png") -> str:
    answer = httpx.post(f"{live_url}/api/v1/studies", files={"file": (name, data)})
    if answer.status_code == 404:  # a server without that route takes it as the page does
        answer = httpx.post(f"{live_url}/studies", files={"file": (name, data)}, headers={"Accept": "text/html"})
        return live_url + answer.headers["location"]
    return live_url + answer.json()["results"][0]["url"]


@contextmanager
def opened(browser: Any, address: str, live: str = "webgl", maps: bool = True, **options: Any) -> Iterator[Any]:
    """A study's page. maps: shown, as they are not at first."""
    from playwright.sync_api import expect

    with browser_page(browser, **options) as page:
        page.goto(address)
        expect(page.locator("[data-viewer]")).to_have_attribute("data-live", live)
        if maps:
            page.get_by_role("button", name="Show maps").click()
        settled(page)
        yield page


def settled(page: Any) -> None:
    """Two frames later whatever was asked for is drawn."""
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done())))")


def view(page: Any, pane: str = "") -> Any:
    """By default the candidate's middle layer, or the radiograph where that is alone."""
    maps = pane or page.locator("[data-pane=candidate-middle]").is_visible()
    return page.locator(f"[data-pane={pane or ('candidate-middle' if maps else 'radiograph')}] [data-view]")


def panes(page: Any) -> list[str]:
    settled(page)
    return [one.get_attribute("data-pane") for one in page.locator("[data-pane]:visible").all()]


def zoom_to(page: Any, how: str) -> float:
    """CSS pixels a source pixel, worked out from the pane's size."""
    box = view(page).bounding_box()
    page.get_by_role("button", name="Fit", exact=True).click()
    zoom = min(box["width"] / WIDTH, box["height"] / HEIGHT)
    if how == "one":
        page.get_by_role("button", name="1:1").click()
        zoom = 1.0
    if how == "closer":
        page.get_by_role("button", name="Zoom in").click()
        page.get_by_role("button", name="Zoom in").click()
        zoom *= 1.25**2
    settled(page)
    return zoom


def on_screen(page: Any, source: tuple[float, float], zoom: float) -> tuple[float, float]:
    """CSS pixels from the pane's corner, with the image's middle in the pane's middle."""
    box = view(page).bounding_box()
    return box["width"] / 2 + (source[0] - WIDTH / 2) * zoom, box["height"] / 2 + (source[1] - HEIGHT / 2) * zoom


def set_window(page: Any, centre: float, width: float) -> None:
    page.get_by_text("Adjust").click()
    page.get_by_label("Centre", exact=True).fill(str(centre))
    page.get_by_label("Width", exact=True).fill(str(width))
    page.get_by_label("Width", exact=True).press("Tab")
    page.keyboard.press("Escape")
    page.get_by_text("Adjust").click()
    settled(page)


def steps_shown(page: Any) -> list[int]:
    """The grey of each step, at the middle of its block."""
    zoom = zoom_to(page, "fit")
    pixels = picture(view(page))
    places = [on_screen(page, (40 * i + 20, 60), zoom) for i in range(len(STEPS))]
    greys = [pixels[round(y), round(x)] for x, y in places]
    assert all(len(set(grey.tolist())) == 1 for grey in greys)
    return [int(grey[0]) for grey in greys]


def test_sixteen_bits_are_windowed_as_computed_by_hand(browser: Any, live_url: str) -> None:
    with opened(browser, uploaded(live_url, stepped()), maps=False) as page:
        # (value − (centre − width/2)) / width × 255
        assert steps_shown(page) == [0, 2, 4, 4, 12, 19, 156, 255]  # full range
        set_window(page, 2000, 4000)
        assert steps_shown(page) == [0, 32, 64, 65, 191, 255, 255, 255]
        set_window(page, 1008, 32)
        assert steps_shown(page) == [0, 0, 64, 191, 255, 255, 255, 255]
        page.get_by_role("button", name="Invert").click()
        settled(page)
        assert steps_shown(page) == [255, 255, 191, 64, 0, 0, 0, 0]
        page.get_by_role("button", name="Flip").click()
        settled(page)
        assert steps_shown(page) == [0, 0, 0, 0, 64, 191, 255, 255]
        view(page).hover(position={"x": 100, "y": 100})
        assert re.search(r"x \d+, y \d+ · value \d+", page.locator("[data-readout]").inner_text())


def test_grey_comes_first_and_one_key_or_click_shows_the_maps(browser: Any, live_url: str) -> None:
    from playwright.sync_api import expect

    four = ["reference-middle", "reference-last", "candidate-middle", "candidate-last"]
    with opened(browser, uploaded(live_url, stepped()), maps=False) as page:
        assert panes(page) == ["radiograph"]
        drawn = picture(view(page)).astype(int)
        height, width = drawn.shape[:2]
        middle = drawn[height // 4 : -(height // 4), width // 3 : -(width // 3)]  # the words are in the corners
        assert middle.std() > 0 and (np.ptp(middle, axis=2) == 0).all()
        page.locator("body").press("o")
        assert panes(page) == four
        page.get_by_role("button", name="Contour").click()
        page.locator("body").press("o")
        assert panes(page) == ["radiograph"]
        page.reload()
        expect(page.locator("[data-viewer]")).to_have_attribute("data-live", "webgl")
        assert panes(page) == ["radiograph"]  # on every page anew
        page.get_by_role("button", name="Show where each looked").click()
        assert panes(page) == four
        expect(page.get_by_role("button", name="Contour")).to_have_attribute("aria-pressed", "true")
        expect(page.get_by_role("button", name="Show where each looked")).to_be_hidden()
        page.get_by_label("Panes").select_option("radiograph")
        assert panes(page) == ["radiograph"]
        page.get_by_label("Panes").select_option("middle")
        assert panes(page) == ["reference-middle", "candidate-middle"]


def test_dragging_changes_the_window(browser: Any, live_url: str) -> None:
    with opened(browser, uploaded(live_url, stepped()), maps=False) as page:
        before = steps_shown(page)
        box = view(page).bounding_box()
        page.mouse.move(box["x"] + 100, box["y"] + 50)
        page.mouse.down()
        page.mouse.move(box["x"] + 40, box["y"] + 50, steps=4)  # narrower
        page.mouse.up()
        settled(page)
        assert float(page.locator("#width").input_value()) < 65535
        assert steps_shown(page)[6] > before[6]  # 40000 is over the centre: brighter
        page.get_by_label("Window preset").select_option(label="Full range")
        settled(page)
        assert steps_shown(page) == before


def hottest_cell(live_url: str, page: Any, role: str, layer: str, finding: str) -> tuple[tuple[float, float], float]:
    """The centre of the map's hottest cell in source pixels, and a cell's side: from the card's crop alone."""
    link = page.locator(".recompute a").nth(0 if role == "reference" else 1).get_attribute("href")
    raw = httpx.get(f"{live_url}{link}/saliency/{layer}/{finding}", headers={"Accept": "application/octet-stream"})
    rows, columns = (int(n) for n in raw.headers["overread-grid"].split(","))
    row, column = divmod(int(np.frombuffer(raw.content, "<f4").argmax()), columns)
    assert raw.content.strip(b"\0"), "a map of zeros shows nothing"
    kept = round(WIDTH * CROP)  # padded to a square of the longer side, then cropped
    left, top = (WIDTH - kept) / 2, (HEIGHT - kept) / 2
    return (left + (column + 0.5) * kept / columns, top + (row + 0.5) * kept / rows), kept / columns


@pytest.mark.parametrize("how", ["fit", "one", "closer"])
def test_the_overlay_lies_where_the_network_looked(browser: Any, live_url: str, how: str) -> None:
    with opened(browser, uploaded(live_url, stepped())) as page:
        page.get_by_label("Colour scale").select_option("own")
        page.get_by_label("Opacity").fill("100")
        zoom = zoom_to(page, how)
        checked = 0
        for pane in ("reference-middle", "candidate-middle", "candidate-last"):
            role, layer = pane.split("-")
            finding = page.locator("[aria-current=true][data-finding]").get_attribute("data-finding")
            said = page.locator(f"[data-pane={pane}] [data-peak]").inner_text()
            if "nothing" in said:
                continue
            source, cell_px = hottest_cell(live_url, page, role, layer, finding)
            x, y = on_screen(page, source, zoom)
            box = view(page, pane).bounding_box()
            if not (8 < x < box["width"] - 8 and 8 < y < box["height"] - 8):
                continue
            marked = page.locator(f"[data-pane={pane}] svg.marks").get_attribute("data-peak-at")
            assert [float(one) for one in marked.split(",")] == pytest.approx([x, y], abs=0.6)
            pixels = picture(view(page, pane)).astype(int)
            away = np.abs(pixels - HOTTEST).max(axis=2)
            row, column = int(y), int(x)  # a pane may begin at half a pixel, so the maximum is here or beside it
            assert away[row - 1 : row + 3, column - 1 : column + 3].min() <= 8
            ys, xs = np.nonzero(away <= 8)
            assert np.hypot(xs + 0.5 - x, ys + 0.5 - y).max() <= 0.75 * cell_px * zoom  # at the rim a map is level
            # Where the network did not look, the radiograph is as it is.
            outside = on_screen(page, (4, HEIGHT / 2), zoom)
            if outside[0] > 1:
                assert len(set(pixels[round(outside[1]), round(outside[0])].tolist())) == 1
            checked += 1
        assert checked


def test_choosing_and_adjusting_makes_no_request(browser: Any, live_url: str) -> None:
    with opened(browser, uploaded(live_url, stepped())) as page:
        asked: list[str] = []
        # Chromium itself asks for the icon whenever the address changes.
        page.on("request", lambda request: request.url.endswith("/icon.svg") or asked.append(request.url))
        page.get_by_label("Colour scale").select_option("own")
        seen = [picture(view(page))]

        def changed() -> bool:
            settled(page)
            seen.append(picture(view(page)))
            return not np.array_equal(seen[-1], seen[-2])

        changes = 0
        for name in FINDINGS[:4]:
            page.locator(f"#finding-{name}").click()
            changes += changed()
        assert changes
        assert "finding=Infiltration" in page.url
        page.locator("#finding-Infiltration").press("ArrowDown")
        assert page.locator("[aria-current=true][data-finding]").get_attribute("data-finding") == "Mass"
        assert "Mass: reference" in page.locator("[data-live][role=status]").inner_text()
        loudest(page)
        changed()
        for name, value in (("Opacity", "100"), ("Threshold", "60")):
            page.get_by_label(name, exact=True).fill(value)
            assert changed(), name
        page.get_by_role("button", name="Contour").click()
        assert changed()
        page.get_by_label("Colours").select_option("cividis")
        assert changed()
        page.locator("body").press("v")
        assert changed()
        page.keyboard.down("x")
        settled(page)
        bare = picture(view(page))
        assert (np.ptp(bare.astype(int), axis=2) == 0).mean() > 0.95  # grey but for the marks
        page.keyboard.up("x")
        assert asked == []


def loudest(page: Any) -> None:
    """Chooses a finding whose candidate's middle map is not empty."""
    for name in FINDINGS:
        page.locator(f"#finding-{name}").click()
        settled(page)
        if "nothing" not in page.locator("[data-pane=candidate-middle] [data-peak]").inner_text():
            return
    pytest.fail("no finding has a map")


def test_another_layer_is_asked_for_once_and_kept_in_the_address(browser: Any, live_url: str) -> None:
    from playwright.sync_api import expect

    with opened(browser, uploaded(live_url, stepped())) as page:
        page.get_by_label("Middle layer").select_option("features.denseblock2")
        expect(page.locator("[data-pane=candidate-middle] [data-layer-name]")).to_have_text("features.denseblock2")
        assert "layer=features.denseblock2" in page.url
        page.reload()
        expect(page.locator("[data-viewer]")).to_have_attribute("data-live", "webgl")
        expect(page.get_by_label("Middle layer")).to_have_value("features.denseblock2")


def measured(page: Any) -> str:
    settled(page)
    return page.locator("[data-length]").inner_text()


def test_length_in_mm_with_the_detectors_spacing(browser: Any, live_url: str) -> None:
    stored = np.random.default_rng(1).integers(0, 4096, (HEIGHT, WIDTH), dtype=np.uint16)
    data = dicom(stored, ImagerPixelSpacing=[0.2, 0.1])
    with opened(browser, uploaded(live_url, data, "a.dcm")) as page:
        zoom = zoom_to(page, "fit")
        page.get_by_role("button", name="Measure").click()
        view(page).click(position={"x": 150, "y": 40})
        view(page).click(position={"x": 250, "y": 40})
        across = re.fullmatch(r"Length ([\d.]+) mm at the detector", measured(page))
        assert across and float(across[1]) == pytest.approx(100 / zoom * 0.1, abs=0.1)
        view(page).click(position={"x": 150, "y": 40})
        view(page).click(position={"x": 150, "y": 140})
        down = re.fullmatch(r"Length ([\d.]+) mm at the detector", measured(page))
        assert down and float(down[1]) == pytest.approx(100 / zoom * 0.2, abs=0.1)
        page.get_by_role("button", name="Clear").click()
        assert measured(page) == ""


def test_length_in_px_by_keyboard_without_spacing(browser: Any, live_url: str) -> None:
    with opened(browser, uploaded(live_url, stepped())) as page:
        zoom = zoom_to(page, "fit")
        page.locator("body").press("m")
        page.locator("[data-stage]").focus()
        page.keyboard.press("ArrowRight")
        page.keyboard.press("Enter")
        for _ in range(3):
            page.keyboard.press("ArrowDown")
        page.keyboard.press("Shift+ArrowDown")
        page.keyboard.press("Enter")
        assert measured(page) == f"Length {8 * max(1, 2 / zoom):.1f} px"
        assert "Length" in page.locator("[data-spoken]").inner_text()
        page.keyboard.press("Escape")
        assert measured(page) == ""


def test_all_panes_move_together_and_arrows_move_them(browser: Any, live_url: str) -> None:
    with opened(browser, uploaded(live_url, stepped())) as page:
        zoom_to(page, "closer")
        view(page).hover(position={"x": 60, "y": 60})
        page.mouse.wheel(0, -240)
        page.locator("[data-stage]").focus()
        page.keyboard.press("ArrowRight")
        page.mouse.move(5, 5)
        page.keyboard.down("x")  # without the overlay
        settled(page)
        one, beside, below = (
            picture(view(page, pane)).astype(int) for pane in ("reference-middle", "reference-last", "candidate-middle")
        )
        assert np.abs(one - beside)[8:-8, 8:-8].max() <= 3
        # A row of panes may begin at half a pixel: then it is drawn one higher or lower.
        assert min(np.abs(one[8:-8, 8:-8] - below[8 + d : d - 8, 8:-8]).max() for d in (-1, 0, 1)) <= 3
        assert np.ptp(one[8:-8, 8:-8]) >= 10


def test_single_keys_can_be_switched_off_and_stay_off(browser: Any, live_url: str) -> None:
    from playwright.sync_api import expect

    with opened(browser, uploaded(live_url, stepped())) as page:
        page.locator("body").press("?")
        expect(page.get_by_role("dialog", name="Keys")).to_be_visible()
        page.get_by_label("Single keys work").uncheck()
        page.get_by_role("button", name="Close").click()
        page.reload()
        expect(page.locator("[data-viewer]")).to_have_attribute("data-live", "webgl")
        page.locator("body").press("i")
        settled(page)
        expect(page.get_by_role("button", name="Invert")).to_have_attribute("aria-pressed", "false")


def test_a_lost_context_comes_back(browser: Any, live_url: str) -> None:
    with opened(browser, uploaded(live_url, stepped())) as page:
        before = picture(view(page))
        page.evaluate(
            """() => new Promise((done) => {
              const canvas = document.querySelector('canvas.screen');
              const loser = canvas.getContext('webgl2').getExtension('WEBGL_lose_context');
              canvas.addEventListener('webglcontextrestored', () => setTimeout(done, 100));
              loser.loseContext();
              setTimeout(() => loser.restoreContext(), 100);
            })"""
        )
        settled(page)
        assert np.array_equal(picture(view(page)), before)


def test_without_webgl_a_2d_canvas_draws_the_same(browser: Any, live_url: str) -> None:
    address = uploaded(live_url, stepped())
    with opened(browser, address) as page:
        page.get_by_label("Colour scale").select_option("own")
        settled(page)
        expected = picture(view(page)).astype(int)
    flat = launched(browser.browser_type, "--disable-3d-apis")
    with opened(flat, address, live="canvas", complaints=False) as page:
        page.get_by_label("Colour scale").select_option("own")
        settled(page)
        assert np.percentile(np.abs(picture(view(page)).astype(int)[:150] - expected[:150]), 95) <= 6
        page.get_by_role("button", name="Off").click()
        set_window(page, 2000, 4000)
        assert np.abs(np.array(steps_shown(page)) - [0, 32, 64, 65, 191, 255, 255, 255]).max() <= 1
    flat.close()


def test_without_javascript_everything_is_there(browser: Any, live_url: str) -> None:
    from playwright.sync_api import expect

    address = uploaded(live_url, stepped())
    with browser_page(browser, java_script_enabled=False) as page:
        loaded: list[str] = []
        page.on("response", lambda answer: answer.ok and loaded.append(answer.url))
        page.goto(address)
        expect(page.locator("figure.pane img")).to_have_count(5)
        assert all(one.bounding_box()["height"] > 80 for one in page.locator("figure.pane img").all())
        assert sum(".png" in one for one in loaded) == 5
        assert not page.get_by_role("button", name="Invert").is_visible()
        page.get_by_role("link", name="Effusion").click()
        expect(page.get_by_role("heading", name="What raises Effusion")).to_be_attached()
        page.locator("#layer").select_option("features.denseblock2")
        page.locator("[data-maps-form] button").click()
        assert "denseblock2/Effusion.png" in (page.locator("figure.pane img").nth(1).get_attribute("src") or "")


def test_panes_and_findings_fit_a_small_screen(browser: Any, live_url: str) -> None:
    with opened(browser, uploaded(live_url, stepped()), width=1280, height=800) as page:
        for pane in page.locator("[data-pane]:visible").all():
            box = pane.bounding_box()
            assert box["y"] + box["height"] <= 800 and box["x"] + box["width"] <= 1280
        last = page.locator(".findings tbody tr").last.bounding_box()
        assert last["y"] + last["height"] <= 800 and last["x"] + last["width"] <= 1280
        for target in page.locator(".viewer button:visible, .viewer select:visible, .findings a").all():
            box = target.bounding_box()
            assert min(box["width"], box["height"]) >= 24


@pytest.mark.parametrize("maps", [False, True])
@pytest.mark.parametrize("width", [768, 820, 897, 1164, 1280, 1313])
def test_the_tools_take_two_rows_on_a_tablet_too(browser: Any, live_url: str, width: int, maps: bool) -> None:
    with opened(browser, uploaded(live_url, stepped()), width=width, height=1180, maps=maps) as page:
        for group in page.locator(".viewer .tools").all():
            tools = [one.bounding_box() for one in group.locator("button:visible, select:visible, summary").all()]
            assert len(tools) >= 7
            assert max(one["y"] for one in tools) - min(one["y"] for one in tools) < tools[0]["height"] / 2
            assert all(one["x"] + one["width"] <= width and min(one["width"], one["height"]) >= 24 for one in tools)
