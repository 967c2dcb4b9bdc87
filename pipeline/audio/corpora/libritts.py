"""LibriTTS: `{subset}/{reader}/{chapter}/{utterance}.wav` beside its `.normalized.txt`, 24 kHz."""

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import torchaudio.datasets

from pipeline.audio.corpora.configuration import SubsetConfig
from pipeline.audio.corpora.corpus import Recording
from pipeline.audio.corpora.published import SubsetDataset, first_line


@dataclass(frozen=True)
class LibriTts(SubsetDataset):
    """One subset of LibriTTS."""

    config: SubsetConfig
    name = "libritts"
    prefixes = ("LibriTTS",)

    def fetch(self, folder: Path) -> None:
        """Download and unpack the subset into an empty folder, through torchaudio."""
        torchaudio.datasets.LIBRITTS(folder, self.config.subset, download=True)

    def recordings(self) -> list[Recording]:
        """All recordings, sorted by their paths."""
        recordings = []
        for file in self.files(f"{self.config.subset}/*/*/*.wav"):
            transcript, note = first_line((self.folder / file).with_suffix(".normalized.txt"))
            recordings.append(Recording(file, PurePosixPath(file).parts[1], transcript, note=note))
        return recordings
