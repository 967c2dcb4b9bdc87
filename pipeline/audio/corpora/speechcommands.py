"""Speech Commands 0.02: `{word}/{speaker}_nohash_{number}.wav`, 16 kHz, with published splits."""

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import torchaudio.datasets

from pipeline.audio.corpora.configuration import DownloadConfig
from pipeline.audio.corpora.corpus import Recording
from pipeline.audio.corpora.published import DownloadableDataset

VERSION = "speech_commands_v0.02"
SPLITS = {"validation": "validation", "testing": "test"}


@dataclass(frozen=True)
class SpeechCommands(DownloadableDataset):
    """Single words by some 2600 speakers; background noise is left out."""

    config: DownloadConfig
    name = "speechcommands"
    prefixes = (f"SpeechCommands/{VERSION}", VERSION)
    landmark = "validation_list.txt"

    def fetch(self, folder: Path) -> None:
        """Download and unpack the dataset into an empty folder, through torchaudio."""
        torchaudio.datasets.SPEECHCOMMANDS(folder, VERSION, download=True)

    def recordings(self) -> list[Recording]:
        """All recordings, sorted by their paths, each with the split that the dataset's lists give it.

        Raises:
            ValueError: a list of a split is missing.
        """
        published = {}
        for subset, split in SPLITS.items():
            path = self.folder / f"{subset}_list.txt"
            if not path.is_file():
                raise ValueError(f"data.root={self.config.root}: {path} is missing; unpack the archive again.")
            published.update(dict.fromkeys(path.read_text(encoding="utf-8").split(), split))
        return [
            Recording(
                file,
                speaker=PurePosixPath(file).stem.split("_nohash_")[0],
                transcript=PurePosixPath(file).parent.name,
                split=published.get(file, "train"),
            )
            for file in self.files("[!_]*/*_nohash_*.wav")
        ]
