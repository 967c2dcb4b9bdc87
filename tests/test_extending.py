"""The page that shows how to add one's own, as it stands."""

import importlib
import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from pipeline.audio.codecs import configuration, registry
from pipeline.audio.corpora.configuration import RootConfig
from pipeline.judges.judge import Specimen
from pipeline.judges.registry import Options
from pipeline.reporting import page
from pipeline.reporting.data import ReportData
from pipeline.streaming.configuration import read_stream
from pipeline.streaming.stream import stream
from tests.drills.stages import STAGES, Workplace

BLOCKS = re.findall(
    r"```python\n(.*?)```", (Path(__file__).parents[1] / "docs/extending.md").read_text(), flags=re.DOTALL
)
MOST_LINES = 20


@pytest.fixture(scope="module")
def defined() -> dict[str, Any]:
    """Everything that the page's blocks define."""
    names: dict[str, Any] = {}
    for block in BLOCKS:
        # A module of its own, with nothing but what it imports itself.
        module: dict[str, Any] = {"__name__": "extending"}
        exec(block, module)
        names |= module
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


@pytest.fixture
def buzzing(espeak_available: None, monkeypatch, tmp_path: Path) -> Workplace:
    """A place to run the stages in, with the page's codec, a module of its own, among the others."""
    (block,) = (block for block in BLOCKS if "BuzzCodec" in block)
    (tmp_path / "buzz.py").write_text(block)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(configuration.CONFIGS, "buzz", configuration.FrameConfig)
    monkeypatch.setitem(registry.CODECS, "buzz", importlib.import_module("buzz").BuzzCodec)
    workplace = Workplace(tmp_path / "work")
    workplace.values["codec"] = {"kind": "buzz", "sample_rate": 8000, "hop_length": 160, "codebook_size": 64}
    return workplace


def test_a_codec_hears_and_speaks(defined) -> None:
    codec = defined["BuzzCodec"](configuration.FrameConfig(8000, 160, 64))
    levels = torch.arange(64)[:, None]
    assert torch.equal(codec.encode(codec.decode(levels) * 3**0.5), levels)
    assert codec.encode(torch.zeros(0)).shape == (0, 1)
    assert codec.encode(torch.zeros(161)).tolist() == [[0], [0]]


def test_a_codec_goes_through_all_stages_and_streams(buzzing: Workplace, tmp_path: Path) -> None:
    assert list(buzzing.build()) == list(STAGES)
    outputs = buzzing.root / "outputs"
    assert json.loads((outputs / "evaluate/metrics.json").read_text())["eval/loss_uniform"] == pytest.approx(
        4.17, abs=0.1
    )
    sampling = {"temperature": 1.0, "top_k": None, "top_p": 1.0}
    settings = {"export": str(outputs / "export"), "prompt": None, "to": str(tmp_path / "said.wav"), "seconds": 0.5}
    stream(read_stream({**settings, **sampling, "echo": False, "speculative": False, "device": "cpu"}), seed=1)
    assert soundfile.info(tmp_path / "said.wav").samplerate == 8000


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
