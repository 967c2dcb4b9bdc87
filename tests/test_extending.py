"""The page that shows how to add one's own, as it stands."""

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from pipeline.audio.corpora.configuration import RootConfig
from pipeline.judges.judge import Specimen
from pipeline.judges.registry import Options
from pipeline.reporting import page
from pipeline.reporting.data import ReportData

BLOCKS = re.findall(
    r"```python\n(.*?)```", (Path(__file__).parents[1] / "docs/extending.md").read_text(), flags=re.DOTALL
)
MOST_LINES = 20


@pytest.fixture(scope="module")
def defined() -> dict[str, Any]:
    """Everything that the page's blocks define."""
    names: dict[str, Any] = {"__name__": "extending"}
    for block in BLOCKS:
        exec(block, names)
    return names


def test_each_is_short() -> None:
    assert BLOCKS
    assert max(len(block.splitlines()) for block in BLOCKS) <= MOST_LINES


def test_a_corpus_lists_its_recordings_with_their_speakers(defined, tmp_path: Path) -> None:
    for file in ("anna/monday.wav", "bert/friday.wav"):
        (tmp_path / "diary" / file).parent.mkdir(parents=True)
        (tmp_path / "diary" / file).touch()
    found = defined["Diary"](RootConfig(str(tmp_path))).recordings()
    assert [(recording.id, recording.speaker) for recording in found] == [
        ("anna/monday.wav", "anna"), ("bert/friday.wav", "bert")
    ]  # fmt: skip


def test_a_measure_has_its_interval_and_is_shown_by_a_section(defined, monkeypatch) -> None:
    rng = np.random.default_rng(0)
    clips = [SimpleNamespace(audio=0.1 * rng.standard_normal(800)) for _ in range(20)]
    metrics = defined["loudness"](SimpleNamespace(clips_of=lambda *kinds: clips)).metrics
    assert metrics["audio/level_db/low"] < metrics["audio/level_db"] < metrics["audio/level_db/high"]
    assert metrics["audio/level_db"] == pytest.approx(-20, abs=0.5)
    monkeypatch.setattr(page, "SECTIONS", (*page.SECTIONS, defined["level"]))
    assert "-20.0 dB of full scale" in page.render(ReportData(metrics={"audio/level_db": -20.0}))
    assert "The level was not measured" in page.render(ReportData(metrics={}))


def test_a_judge_judges(defined) -> None:
    judge = defined["Loudness"](Options())
    loud, quiet = (judge.judge(Specimen(np.full(160, level, np.float32))).figures["level"] for level in (0.5, 0.1))
    assert loud > quiet
    assert judge.measures.keys() == {"level"}
