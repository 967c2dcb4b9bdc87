"""The report and the comparison as a reader meets them: offline, on a phone, in the dark, by keyboard, on paper."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pipeline.comparison.configuration import ComparisonConfig
from pipeline.comparison.contest import compare_evaluations
from pipeline.comparison.evaluated import read_evaluated
from pipeline.comparison.finding.found import Found
from pipeline.comparison.page import write_page
from pipeline.reporting.data import ReportPaths, collect
from pipeline.reporting.page import write_report
from tests.browsing.browser import open_browser, opened
from tests.evaluations import Model, write_evaluation_of

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

DESKTOP, PHONE = 1280, 390
# A4 within the margins that the style sheet asks for: 182 mm.
PAPER = 688
# https://www.w3.org/TR/WCAG22/#contrast-minimum
LEAST_CONTRAST = 4.5
PAGES = ("report", "comparison")


@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    with open_browser() as found:
        yield found


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory, shared_paths: ReportPaths, configuration: dict) -> dict[str, Path]:
    """A small report with a baseline, and the comparison alone."""
    root = tmp_path_factory.mktemp("pages")
    names = {"before": Model(loss=3.2), "a run with a rather long name": Model(loss=3.0, seed=1)}
    models = [
        read_evaluated(Found(name, name), write_evaluation_of(model, root / name, sounds=True))
        for name, model in names.items()
    ]
    comparison = compare_evaluations(models, ComparisonConfig(("eval/loss", "audio/fd"), None), n_resamples=100)
    report = replace(collect(shared_paths, configuration, n_examples=1), against=comparison)
    return {
        "report": write_report(report, root / "report"),
        "comparison": write_page(comparison, root / "comparison", n_examples=1),
    }


@pytest.mark.parametrize("width", [DESKTOP, PHONE])
@pytest.mark.parametrize("name", PAGES)
def test_a_clip_plays_without_a_network(browser: "Browser", pages: dict[str, Path], name: str, width: int) -> None:
    with opened(browser, pages[name], width) as page:
        player = page.locator("audio").first
        player.focus()
        page.keyboard.press("Space")
        assert player.evaluate("seen.played") == {"moved": True, "error": None, "ready": 4}


@pytest.mark.parametrize("width", [DESKTOP, PHONE])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", PAGES)
def test_everything_can_be_read(browser: "Browser", pages: dict[str, Path], name: str, scheme: str, width: int) -> None:
    with opened(browser, pages[name], width, color_scheme=scheme) as page:
        unfold(page)
        assert page.evaluate("document.documentElement.scrollWidth") == width
        assert page.evaluate(f"seen.tooPale({LEAST_CONTRAST})") == []


@pytest.mark.parametrize("name", PAGES)
def test_a_keyboard_reaches_everything_in_order(browser: "Browser", pages: dict[str, Path], name: str) -> None:
    with opened(browser, pages[name]) as page:
        expected = page.evaluate("seen.reachable()")
        reached: list[int] = []
        # Each player has several buttons of its own.
        for _ in range(12 * len(expected)):
            page.keyboard.press("Tab")
            place, shows = page.evaluate("seen.focused()")
            if place < 0 and reached and reached[-1] == len(expected) - 1:
                break
            if place >= 0 and place not in reached:
                reached.append(place)
                assert shows, expected[place]
        assert reached == list(range(len(expected)))


@pytest.mark.parametrize("name", PAGES)
def test_paper_cuts_no_table(browser: "Browser", pages: dict[str, Path], name: str) -> None:
    with opened(browser, pages[name], PAPER) as page:
        page.emulate_media(media="print")
        assert page.evaluate("document.documentElement.scrollWidth") == PAPER
        assert page.evaluate("seen.cut()") == []
        assert page.pdf(prefer_css_page_size=True).startswith(b"%PDF")


def unfold(page: "Page") -> None:
    page.evaluate("document.querySelectorAll('details').forEach(part => part.open = true)")
