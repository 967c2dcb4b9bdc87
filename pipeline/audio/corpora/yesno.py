"""YESNO: eight words a file, each of them yes or no, in Hebrew, by one speaker, 8 kHz."""

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import torchaudio.datasets

from pipeline.audio.corpora.configuration import DownloadConfig
from pipeline.audio.corpora.corpus import Recording
from pipeline.audio.corpora.published import DownloadableDataset


@dataclass(frozen=True)
class YesNo(DownloadableDataset):
    """`waves_yesno/1_0_0_1_0_1_1_1.wav`; the transcript says in English what the name says in digits."""

    config: DownloadConfig
    name = "yesno"
    prefixes = ("waves_yesno",)
    landmark = "[01]_*.wav"

    def fetch(self, folder: Path) -> None:
        """Download and unpack the dataset into an empty folder, through torchaudio."""
        torchaudio.datasets.YESNO(folder, download=True)

    def recordings(self) -> list[Recording]:
        """All recordings, sorted by their paths."""
        return [
            Recording(file, speaker="yesno", transcript=_words(PurePosixPath(file).stem))
            for file in self.files(self.landmark)
        ]


def _words(stem: str) -> str:
    return " ".join("yes" if digit == "1" else "no" for digit in stem.split("_"))
