from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import soundfile

from pipeline.audio.codecs.configuration import CodecUse
from pipeline.audio.configuration import ScreeningConfig, SplitConfig, UtteranceConfig
from pipeline.audio.corpora.corpus import Corpus, Recording
from pipeline.audio.source import Source
from pipeline.preparation.configuration import DataConfig, ProcessingConfig
from pipeline.preparation.encoding import Material
from pipeline.preparation.engines.engine import LocalEngine
from pipeline.preparation.inspection import Inspecting
from pipeline.preparation.listing import write_listing
from pipeline.preparation.plan_making import make_plan
from pipeline.preparation.utterance_reader import UtteranceReader

RATE = 8000
SCREENING = ScreeningConfig(
    silence_rms=1e-4,
    max_clipped_fraction=0.01,
    max_rejected_fraction=1.0,
    damaged="skip",
    min_sample_rate=4000,
    max_sample_rate=768_000,
    max_hours=24,
)


DATA = DataConfig(
    kind="few",
    seed=1,
    options={},
    split=SplitConfig("file", 0.2, 0.2),
    utterances=UtteranceConfig(min_seconds=0.01, max_seconds=20.0, join_seconds=None, gap_seconds=0.05),
    screening=SCREENING,
    processing=ProcessingConfig(shard_utterances=3, reference_utterances=5, workers=1),
)


def voice(seconds: float, seed: int, sample_rate: int = RATE) -> np.ndarray:
    """Syllables of gliding harmonics over a little breath: no two seeds alike."""
    generator = np.random.default_rng(seed)
    time = np.arange(round(seconds * sample_rate)) / sample_rate
    phase = 2 * np.pi * np.cumsum(120 + 40 * np.sin(2 * np.pi * 0.7 * time + seed)) / sample_rate
    harmonics = sum(np.sin(k * phase + k) / k for k in range(1, 11))
    syllables = np.maximum(np.sin(2 * np.pi * 3 * time), 0) ** 0.5
    return (0.1 * harmonics * syllables + 1e-3 * generator.standard_normal(len(time))).astype(np.float32)


@dataclass(frozen=True)
class FewRecordings:
    """Recordings that the test gives: samples, which lie in WAV files, or the reason why there are none."""

    folder: Path
    given: tuple[Recording, ...]
    name = "few"

    def recordings(self) -> list[Recording]:
        return list(self.given)

    def remarks(self) -> list[str]:
        return []

    def source(self, recording: Recording) -> Source:
        return Source.of(self.folder / f"{recording.id}.wav")


@pytest.fixture(scope="session")
def make_voice() -> Callable[..., np.ndarray]:
    return voice


@pytest.fixture(scope="session")
def make_corpus(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., FewRecordings]:
    def make(
        audio: Mapping[str, np.ndarray | str], sample_rate: int = RATE, splits: Mapping[str, str] | None = None
    ) -> FewRecordings:
        folder, given = tmp_path_factory.mktemp("corpus"), []
        for name, samples in audio.items():
            defect = samples if isinstance(samples, str) else ""
            split = (splits or {}).get(name)
            given.append(Recording(name, name.split("/")[0], f"says {name}", split, defect))
            if not defect:
                path = folder / f"{name}.wav"
                path.parent.mkdir(parents=True, exist_ok=True)
                soundfile.write(path, samples, sample_rate, subtype="FLOAT")
        return FewRecordings(folder, tuple(given))

    return make


def inspecting(
    corpus: Corpus, folder: Path, min_seconds: float = 0.0, config: ScreeningConfig = SCREENING
) -> Inspecting:
    """The first pass over a corpus, done."""
    work = Inspecting(
        corpus,
        folder / "recordings.sqlite",
        folder,
        write_listing(corpus.recordings(), folder / "recordings.sqlite"),
        min_seconds,
        config,
    )
    LocalEngine(1).run(work)
    return work


@pytest.fixture(scope="session")
def inspect() -> Callable[..., Inspecting]:
    return inspecting


@pytest.fixture(scope="session")
def data() -> DataConfig:
    return DATA


@pytest.fixture(scope="session")
def make_reader(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., UtteranceReader]:
    """A reader of a corpus that has been inspected."""

    def make(corpus: FewRecordings, sample_rate: int, gap_seconds: float) -> UtteranceReader:
        found = inspecting(corpus, tmp_path_factory.mktemp("inspected")).findings()
        return UtteranceReader(corpus, {i.recording.id: i for i in found}, sample_rate, gap_seconds)

    return make


@pytest.fixture(scope="session")
def make_material(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Material]:
    """A corpus that has been inspected and planned."""

    def make(corpus: Corpus, config: DataConfig = DATA) -> Material:
        folder = tmp_path_factory.mktemp("material")
        work = inspecting(corpus, folder, config.utterances.min_recording_seconds, config.screening)
        make_plan(work.findings(), config, folder / "plan.sqlite", folder / "prepared")
        gap_seconds = config.utterances.gap_seconds
        return Material(corpus, folder / "plan.sqlite", folder / "work", RATE, gap_seconds, CodecUse())

    return make
