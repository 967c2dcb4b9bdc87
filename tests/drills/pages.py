"""Hostile names and texts in the report: nothing runs, and nothing breaks out of its place."""

import html
import random
import shutil
import subprocess
from pathlib import Path

from pipeline.reporting.data import ReportData
from pipeline.reporting.page import render
from tests.drills.tally import Family, LostError, Tally

MARK = "drill_ran"
HOSTILE = (
    f"<script>document.title='{MARK}'</script>", f"\"><img src=x onerror=\"document.title='{MARK}'\">",
    f"'><svg onload=document.title='{MARK}'>", f"</style><script>document.title='{MARK}'</script>",
    f"</title><script>document.title='{MARK}'</script>", f"javascript:document.title='{MARK}'",
    f"{{{{7*7}}}}{{% raw %}}<b>{MARK}</b>", "\x00\x08\u202e\ud7ff" + "z" * 5000, f"&lt;script&gt;{MARK}", "]]><!--",
)  # fmt: skip
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def pages(root: Path, chance: random.Random, seconds: float) -> list[Tally]:
    """Put hostile texts wherever the page shows one, and open it in a browser where there is one."""
    escaped = Family("hostile text in the report", chance, seconds / 2)
    while escaped.has_time or not escaped.tally.tries:
        texts = chance.sample(HOSTILE, 3)
        escaped.attempt(repr(texts)[:60], lambda texts=texts: _require_escaped(_page(texts)))
        if escaped.tally.tries >= 200:
            break
    opened = Family("hostile text in a browser", chance, seconds / 2)
    browser = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if browser is None:
        opened.tally.skipped = "no Chromium here"
        return [escaped.tally, opened.tally]
    for text in HOSTILE:
        if opened.has_time or not opened.tally.tries:
            page = root / "page.html"
            page.write_text(_page([text] * 3), encoding="utf-8", errors="replace")
            opened.attempt(text[:40], lambda page=page: _require_harmless(browser, page))
    return [escaped.tally, opened.tally]


def _page(texts: list[str]) -> str:
    first, second, third = texts
    configuration = {"data": {"kind": first}, "codec": {"kind": second}, "model": {third: first}, "seed": second}
    return render(
        ReportData(
            metrics={"eval/loss": 3.0, second: 1.0},
            title=first,
            configuration=configuration,
            run={"run_id": first, "experiment": second, "tracking_uri": third},
            lineage={first: second, "mlflow.source.git.branch": third, "git.changed_files": first},
            environment={"cpu": third, second: first},
            data_card={"corpus": first, "splits": {}},
        )
    )


def _require_escaped(page: str) -> None:
    for text in HOSTILE:
        if "<" in text and text in page:
            raise LostError(f"{text!r} stands in the page as it is")
    if "49{%" in page:
        raise LostError("a template within a text is carried out")


def _require_harmless(browser: str, page: Path) -> None:
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=2000", "--dump-dom"]
    profile = page.parent / "profile"
    done = subprocess.run(
        [*command, f"--user-data-dir={profile}", page.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    title = done.stdout.partition("<title>")[2].partition("</title>")[0]
    if not done.stdout:
        raise LostError("the browser shows nothing")
    if html.unescape(title).strip() == MARK:
        raise LostError("a script of the text ran")
