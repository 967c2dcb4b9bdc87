"""A real browser that has no network, to look at pages as a reader does."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

EXECUTABLES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
WITHOUT_NETWORK = ("file:", "data:")


@contextmanager
def open_browser() -> Iterator["Browser"]:
    """Chromium as it is installed here; the test is skipped where there is none."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    executable = next((found for name in EXECUTABLES if (found := shutil.which(name))), None)
    if executable is None:
        pytest.skip("no Chromium here")
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=executable, args=["--mute-audio"])
        yield browser
        browser.close()


@contextmanager
def opened(browser: "Browser", file: Path, width: int = 1280, **look: Any) -> Iterator["Page"]:
    """The page, which asks for nothing but files and what lies within them, and has nothing to complain of.

    Args:
        browser: to open it in.
        file: of the page.
        width: of the window in CSS pixels.
        look: further options of Playwright's `new_context`, as `color_scheme`.
    """
    context = browser.new_context(viewport={"width": width, "height": 900}, offline=True, **look)
    context.add_init_script(path=Path(__file__).with_name("seen.js"))
    page = context.new_page()
    asked: list[str] = []
    said: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto(file.as_uri())
    yield page
    assert [address for address in asked if not address.startswith(WITHOUT_NETWORK)] == []
    assert said == []
    context.close()
