"""A real browser that looks at pages, and finds their faults."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, ConsoleMessage, Page, expect, sync_playwright

SCREENSHOTS = os.environ.get("CONSOLE_SCREENSHOTS")  # a folder, for the documents
GALLERY = os.environ.get("CONSOLE_GALLERY")  # a folder, for whoever looks at each page in each form
PROGRAM = shutil.which("chromium") or shutil.which("google-chrome")
WIDE, TABLET, NARROW, DESKTOP = (1280, 860), (800, 1100), (390, 844), (1440, 900)
SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")
CUT_OFF = """[...document.querySelectorAll(".card:has(.table)")].filter(each => each.scrollWidth > each.clientWidth)
    .map(each => `${each.textContent.trim().slice(0, 40)}: ${each.scrollWidth} in ${each.clientWidth}`)"""
SOON = 30_000  # milliseconds to wait for an element, on a machine that runs other tests too


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """The browser. Without one the tests are skipped visibly, or fail with KAFKA_TEST_REQUIRED, as in CI."""
    if PROGRAM is None:
        reason = "no browser: install chromium"
        if os.environ.get("KAFKA_TEST_REQUIRED"):
            pytest.fail(reason)
        pytest.skip(reason)
    with sync_playwright() as playwright:
        expect.set_options(timeout=SOON)
        browser = playwright.chromium.launch(executable_path=PROGRAM, args=["--no-sandbox"])
        yield browser
        browser.close()


class Visitor:
    """A user of a deployment's console, whose pages must have no errors."""

    def __init__(self, browser: Browser, url: str, **options: Any) -> None:
        self.errors: list[str] = []
        self.page: Page = browser.new_page(viewport={"width": WIDE[0], "height": WIDE[1]}, **options)
        self.page.on("console", self._said)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.url = url

    def go(self, path: str, *, below: str = "/console") -> Page:
        """Opens a page."""
        self.page.goto(f"{self.url}{below}{path}")
        return self.page

    def keep(self, name: str, *, documented: bool = False) -> None:
        """Takes screenshots, if requested: one for the documents, and the whole page in each form for the gallery."""
        self.page.evaluate("scrollTo(0, 0)")
        if SCREENSHOTS and documented:
            Path(SCREENSHOTS).mkdir(parents=True, exist_ok=True)
            self.page.screenshot(path=f"{SCREENSHOTS}/{name}.png")
        if not GALLERY:
            return
        Path(GALLERY).mkdir(parents=True, exist_ok=True)
        for width, height in (DESKTOP, NARROW):
            self.page.set_viewport_size({"width": width, "height": height})
            for scheme in SCHEMES:
                self.page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
                self.page.screenshot(path=f"{GALLERY}/{name}-{width}-{scheme}.png", full_page=True)
        self.page.emulate_media(color_scheme="light")
        self.page.set_viewport_size({"width": WIDE[0], "height": WIDE[1]})

    def assert_accessible(self) -> None:
        """Axe finds no fault in light and dark; only a table scrolls sideways, and on a laptop nothing does."""
        for scheme in SCHEMES:
            self.page.emulate_media(color_scheme=scheme, reduced_motion="reduce")  # without colour transitions
            found = Axe().run(self.page)
            assert found.violations_count == 0, f"{self.page.url}, {scheme}: {found.generate_report()}"
        self.page.emulate_media(color_scheme="light")
        for width, height in (NARROW, TABLET, WIDE):
            self.page.set_viewport_size({"width": width, "height": height})
            assert self.page.evaluate("document.documentElement.scrollWidth") <= width, self.page.url
        cut = self.page.evaluate(CUT_OFF)
        assert not cut, f"{self.page.url}: {cut}"

    def _said(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"}:
            self.errors.append(message.text)
