"""The pages in a real browser, Debian's chromium: they render, fit, can be read, and fetch nothing."""

from __future__ import annotations

import base64
import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pytest
from playwright.sync_api import sync_playwright

from bench import report
from harness import report as demo
from harness.ledger import LOST_DOWN
from harness.matrix import Outcome
from tests.bench_document import document
from tests.unit.test_expect import fates, record, some

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser, Page, ViewportSize

LOOK = Path(__file__).with_name("look.js").read_text(encoding="ascii")
PHONE: ViewportSize = {"width": 360, "height": 740}
DESKTOP: ViewportSize = {"width": 1280, "height": 900}
LEAST_CONTRAST = 4.5  # WCAG 2.2, 1.4.3
LEAST_PX = 12  # of a picture's sides, and of what its marks cover


@dataclass(slots=True)
class Shown:
    """A page as a browser shows it, what it asked for and what the browser had to say about it."""

    page: Page
    url: str
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def open(self) -> None:
        """Go there, and note all that happens on the way."""
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.goto(self.url)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=shutil.which("chromium"))


@pytest.fixture(scope="module", params=["bench", "demo"])
def shown(request: pytest.FixtureRequest, browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Shown:
    """Opened from a file, as people open it."""
    run = record(some(fates(), 5, LOST_DOWN))
    text = report.page(document()) if request.param == "bench" else demo.page([Outcome(run.scenario, run)])
    path = tmp_path_factory.mktemp("pages") / f"{request.param}.html"
    path.write_text(text, encoding="utf-8")
    found = Shown(browser.new_page(viewport=DESKTOP), path.as_uri())
    found.open()
    return found


def seen(page: Page, what: str, of: Any = None) -> Any:
    return page.evaluate(f"(given) => {LOOK.strip()}.{what}(given)", of)


def screenshot(page: Page) -> str:
    return base64.b64encode(page.screenshot(full_page=True)).decode()


def contrast(one: str, other: str) -> float:
    """The contrast of two colours as a browser writes them (WCAG 2.2, relative luminance)."""
    darker, lighter = sorted((luminance(one), luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


def luminance(colour: str) -> float:
    parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def test_a_page_fetches_nothing_and_gives_no_cause_for_complaint(shown: Shown) -> None:
    assert shown.requests == [shown.url]
    assert shown.complaints == []


@pytest.mark.parametrize("viewport", [PHONE, DESKTOP], ids=["phone", "desktop"])
def test_a_page_is_as_wide_as_its_reader_s_screen(shown: Shown, viewport: ViewportSize) -> None:
    shown.page.set_viewport_size(viewport)
    assert seen(shown.page, "overflow") == 0
    pictures = seen(shown.page, "pictures")
    assert [one["title"] for one in pictures if one["box"][0] + one["box"][2] > viewport["width"]] == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_stands_out_from_light_and_from_dark_paper(shown: Shown, scheme: Literal["light", "dark"]) -> None:
    shown.page.emulate_media(color_scheme=scheme)
    colours = seen(shown.page, "colours")
    assert (luminance(colours["paper"]) < 0.05) == (scheme == "dark")
    assert len(colours["text"]) > 1
    assert [text for text in colours["text"] if contrast(text, colours["paper"]) < LEAST_CONTRAST] == []


def test_every_picture_has_room_and_marks_that_can_be_seen(shown: Shown) -> None:
    pictures = seen(shown.page, "pictures")
    assert pictures
    assert [one["title"] for one in pictures if min(one["box"][2:]) < LEAST_PX or not one["marks"]] == []
    boxes = [one["box"] for one in pictures]
    with_marks = screenshot(shown.page)
    shown.page.add_style_tag(content=".mark { visibility: hidden !important; }")
    covered = seen(shown.page, "differing", [with_marks, screenshot(shown.page), boxes])
    assert [one["title"] for one, pixels in zip(pictures, covered, strict=True) if pixels < LEAST_PX] == []
