"""Hostile audio files, surveyed in a process of their own: used or refused by name, in bounded time."""

import random
from collections.abc import Sequence
from pathlib import Path

from pipeline.audio.configuration import ScreeningConfig
from pipeline.audio.corpora.configuration import FolderConfig
from pipeline.audio.corpora.folder import FolderCorpus
from pipeline.plumbing.database import writing_database
from pipeline.preparation.data_card import write_manifest
from pipeline.preparation.engines.engine import LocalEngine
from pipeline.preparation.inspection import Inspecting, Inspection
from pipeline.preparation.listing import write_listing
from pipeline.preparation.plan import SCHEMA, Plan
from pipeline.preparation.plan_making import mark_copies, record_findings
from tests.drills.hostile_audio import KINDS, Hostile, outcomes, write_hostile_audio
from tests.drills.injection import Fault, in_another_process
from tests.drills.tally import Family, LostError, Tally

SCREENING = ScreeningConfig(1e-4, 0.01, 1.0, "skip", 4000, 768_000, 24)
# The drill's least, whatever its time: 500 files, of every kind there is.
FILES = 500
SECONDS_A_BATCH = 600.0


def recordings(root: Path, chance: random.Random, seconds: float) -> list[Tally]:
    """Survey batches of hostile files, a small one where there is little time."""
    family = Family("hostile audio file", chance, seconds)
    count = FILES if seconds >= 60 else len(KINDS)
    while family.has_time or not family.tally.tries:
        seed = chance.randrange(10**6)
        folder = root / f"{seed}"
        written = write_hostile_audio(folder / "audio", count, seed, large=count >= FILES)
        ended = in_another_process(lambda: _survey(folder), folder, Fault(), SECONDS_A_BATCH)  # noqa: B023 - called now
        lost = _lost(written, folder / "manifest.csv") if ended.status == 0 else [f"all: {ended.said}"] * count
        for number in range(count):
            family.attempt(f"seed {seed}", lambda: _require(lost, number))  # noqa: B023 - called now
    return [family.tally]


def _survey(folder: Path) -> None:
    survey_folder(folder / "audio", "none", folder, workers=1)


def survey_folder(audio: Path, speaker_from: str, folder: Path, workers: int) -> list[Inspection]:
    """What is found in the files of a tree, and `folder`/manifest.csv with it."""
    corpus, listing = FolderCorpus(FolderConfig(audio, speaker_from, None)), folder / "recordings.sqlite"
    n_recordings = write_listing(corpus.recordings(), listing)
    work = Inspecting(corpus, listing, folder / "inspected", n_recordings, 0.3, SCREENING)
    LocalEngine(workers).run(work)
    with writing_database(folder / "plan.sqlite", SCHEMA) as database:
        record_findings(database, work.findings())
        mark_copies(database)
        write_manifest(Plan(database), folder / "manifest.csv")
        return [inspection for inspection, _ in Plan(database).recordings()]


def _lost(written: Sequence[Hostile], manifest: Path) -> list[str]:
    return [outcome.fault for outcome in outcomes(list(written), manifest) for _ in range(outcome.lost)]


def _require(lost: Sequence[str], number: int) -> None:
    if number < len(lost):
        raise LostError(lost[number])
