"""The Free Spoken Digit Dataset: `recordings/{digit}_{speaker}_{index}.wav`, 8 kHz."""

from dataclasses import dataclass
from pathlib import PurePosixPath

from pipeline.audio.corpora.configuration import RootConfig
from pipeline.audio.corpora.corpus import Recording
from pipeline.audio.corpora.published import PublishedDataset

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


@dataclass(frozen=True)
class Fsdd(PublishedDataset):
    """Single digits by a few speakers; the transcript is the digit in words."""

    config: RootConfig
    name = "fsdd"
    prefixes = ("", "free-spoken-digit-dataset")
    landmark = "recordings"

    def recordings(self) -> list[Recording]:
        """All recordings, sorted by their paths."""
        recordings = []
        for file in self.files("recordings/[0-9]_*_*.wav"):
            digit, speaker, _ = PurePosixPath(file).stem.split("_", 2)
            recordings.append(Recording(file, speaker=speaker, transcript=DIGITS[int(digit)]))
        return recordings
