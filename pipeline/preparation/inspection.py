"""The first pass over a corpus: what every recording holds, and whether it can be used."""

import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

from pipeline.audio.configuration import ScreeningConfig
from pipeline.audio.corpora.corpus import Corpus, Recording
from pipeline.audio.reading import UnusableRecording
from pipeline.audio.screening import screen
from pipeline.audio.survey import Take, survey
from pipeline.plumbing.files import read_json, write_json
from pipeline.plumbing.fingerprint import fingerprint
from pipeline.plumbing.worker_processes import in_process_of_its_own
from pipeline.preparation.listing import read_listing, to_json
from pipeline.preparation.sharded import ShardedWork

# Recordings of a shard, at most; a small corpus makes so many shards at least, for all cores to have some.
LARGEST_SHARD = 256
FEWEST_SHARDS = 64


@dataclass(frozen=True)
class Inspection:
    """What was found in one recording.

    Attributes:
        recording: the recording.
        seconds: the length of what is used of it; 0 when it could not be read.
        sha256: of the samples that are used, so that a copy under another name is known; empty when there are none.
        reason: why it is not used; empty when it is.
        note: what else is to be said: what its header has wrong, or what is missing although the rest is used.
        take: which samples are used; None when it could not be read.
    """

    recording: Recording
    seconds: float = 0.0
    sha256: str = ""
    reason: str = ""
    note: str = ""
    take: Take | None = None


@dataclass(frozen=True)
class Inspecting(ShardedWork):
    """Reads every recording once. What is found in an unchanged file is not sought again.

    Attributes:
        corpus: that the recordings are of.
        listing: the file that lists them.
        folder: where what is found is written, a file a shard.
        n_recordings: how many are listed.
        min_seconds: the length from which a recording is of use.
        config: what makes one unusable.
    """

    corpus: Corpus
    listing: Path
    folder: Path
    n_recordings: int
    min_seconds: float
    config: ScreeningConfig

    description: ClassVar[str] = "inspecting"
    unit: ClassVar[str] = "recording"
    step: ClassVar[str] = "inspect"

    @property
    def shard_recordings(self) -> int:
        """Recordings of each shard but the last."""
        return min(LARGEST_SHARD, max(1, math.ceil(self.n_recordings / FEWEST_SHARDS)))

    @property
    def n_shards(self) -> int:
        """How many shards there are."""
        return math.ceil(self.n_recordings / self.shard_recordings)

    def size(self, number: int) -> int:
        """Recordings of a shard."""
        return min(self.shard_recordings, self.n_recordings - number * self.shard_recordings)

    def name(self, number: int) -> str:
        """The shard and its recordings, counted from 1."""
        first, size = number * self.shard_recordings + 1, self.size(number)
        return f"recording {first}" if size == 1 else f"recordings {first} to {first + size - 1}"

    def written(self) -> set[int]:
        """The shards of which something is found, if perhaps in files that have changed since."""
        return {int(path.stem) for path in self.folder.glob("[0-9]*.json")}

    def pending(self) -> Sequence[int]:
        """All of them: whether a file has changed is seen by those who would read it."""
        return range(self.n_shards)

    def __call__(self, number: int) -> None:
        """Read the recordings of a shard."""
        self._write(number, self._inspect)

    def after_death(self, number: int) -> None:
        """Read each recording in a process of its own, to find those that kill it."""
        self._write(number, self._inspect_apart)

    def findings(self) -> Iterator[Inspection]:
        """What was found in each recording, in their order.

        Raises:
            ValueError: a shard is of other recordings than listed.
        """
        for number in range(self.n_shards):
            recordings, path = self._recordings(number), self._path(number)
            found = read_json(path)
            if found.get("recordings") != _fingerprint(recordings):
                raise ValueError(
                    f"{path} was found in other recordings: the corpus has changed in between; inspect it again."
                )
            for recording, row in zip(recordings, found["found"], strict=True):
                del row["stamp"]
                take = row.pop("take")
                yield Inspection(recording, **row, take=Take(**take) if take else None)

    def _write(self, number: int, inspect: Callable[[Recording], Inspection]) -> None:
        recordings = self._recordings(number)
        rows = []
        for recording, known in zip(recordings, self._known(number, recordings), strict=True):
            stamp = self._stamp(recording)
            # What was against a file may have been the fault of the disk, the network or its permissions.
            unchanged = known is not None and known["stamp"] == stamp and not known["reason"]
            rows.append(known if unchanged else {"stamp": stamp, **_row(inspect(recording))})
        write_json(self._path(number), {"recordings": _fingerprint(recordings), "found": rows})

    def _known(self, number: int, recordings: Sequence[Recording]) -> Sequence[dict[str, Any] | None]:
        """What an earlier call found in each of the recordings."""
        path = self._path(number)
        found = read_json(path) if path.exists() else {}
        return found["found"] if found.get("recordings") == _fingerprint(recordings) else [None] * len(recordings)

    def _recordings(self, number: int) -> Sequence[Recording]:
        start = number * self.shard_recordings
        return read_listing(self.listing, start, start + self.size(number))

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:06d}.json"

    def _inspect(self, recording: Recording) -> Inspection:
        return _inspect(recording, self.corpus, self.min_seconds, self.config)

    def _inspect_apart(self, recording: Recording) -> Inspection:
        try:
            return in_process_of_its_own(self._inspect, recording)
        except BrokenProcessPool:
            return Inspection(recording, reason="decoding it killed the process", note=recording.note)

    def _stamp(self, recording: Recording) -> str:
        """The size of a recording's file and when it was changed, its permissions too; empty where there is none."""
        try:
            status = Path(self.corpus.source(recording).path).stat()
        except (OSError, ValueError):
            return ""
        return f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}"


def _row(inspection: Inspection) -> dict[str, Any]:
    row = asdict(inspection)
    del row["recording"]
    return row


def _fingerprint(recordings: Sequence[Recording]) -> str:
    return fingerprint([to_json(recording) for recording in recordings])


def _inspect(recording: Recording, corpus: Corpus, min_seconds: float, config: ScreeningConfig) -> Inspection:
    if recording.defect:
        return Inspection(recording, reason=recording.defect, note=recording.note)
    try:
        found = survey(corpus.source(recording), config.silence_rms, config.max_hours * 3600)
    except UnusableRecording as error:
        return Inspection(recording, reason=error.reason, note=recording.note)
    reason = ""
    try:
        screen(found, min_seconds, config)
    except UnusableRecording as error:
        reason = error.reason
    damage = [f"damaged, {found.damage}: what lies before is used"] if found.damage and not reason else []
    note = "; ".join([*damage, *found.notes, *([recording.note] if recording.note else [])])
    return Inspection(recording, found.seconds, found.sha256, reason, note, found.take)
