"""LJ Speech 1.1: `wavs/*.wav` and `metadata.csv`, one reader, 22.05 kHz."""

import csv
from dataclasses import dataclass
from pathlib import Path

import torchaudio.datasets

from pipeline.audio.corpora.configuration import DownloadConfig
from pipeline.audio.corpora.corpus import Recording
from pipeline.audio.corpora.published import DownloadableDataset


@dataclass(frozen=True)
class LjSpeech(DownloadableDataset):
    """Passages read by one speaker; the transcript is the normalised one, with numbers in words."""

    config: DownloadConfig
    name = "ljspeech"
    prefixes = ("LJSpeech-1.1",)
    landmark = "metadata.csv"

    def fetch(self, folder: Path) -> None:
        """Download and unpack the dataset into an empty folder, through torchaudio."""
        torchaudio.datasets.LJSPEECH(folder, download=True)

    def recordings(self) -> list[Recording]:
        """All recordings that the metadata lists, sorted by their paths.

        Raises:
            ValueError: the metadata has a line that is not `id|transcript|normalised transcript`.
        """
        path = self.folder / "metadata.csv"
        recordings = []
        with path.open(newline="", encoding="utf-8") as file:
            for number, row in enumerate(csv.reader(file, delimiter="|", quoting=csv.QUOTE_NONE), start=1):
                if len(row) != 3:
                    raise ValueError(f"{path}, line {number}: expected id|transcript|normalised transcript.")
                recordings.append(Recording(f"wavs/{row[0]}.wav", speaker="LJ", transcript=row[2]))
        return sorted(recordings, key=lambda recording: recording.id)
