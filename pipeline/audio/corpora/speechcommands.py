"""Speech Commands 0.02: `{word}/{speaker}_nohash_{number}.wav`, 16 kHz, with published splits."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

import torchaudio.datasets

from pipeline.audio.corpora.configuration import DownloadConfig
from pipeline.audio.corpora.corpus import Recording
from pipeline.audio.corpora.published import DownloadableDataset
from pipeline.audio.corpora.tables import counted

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
            ValueError: a list of a split is missing, or no text.
        """
        return self._listing[0]

    def remarks(self) -> list[str]:
        """What is wrong with the lists."""
        return self._listing[1]

    @cached_property
    def _listing(self) -> tuple[list[Recording], list[str]]:
        files = self.files("[!_]*/*_nohash_*.wav")
        published: dict[str, list[str]] = {}
        remarks = []
        for subset, split in SPLITS.items():
            path = self.folder / f"{subset}_list.txt"
            listed = self._list(path)
            for file in listed:
                published.setdefault(file, []).append(split)
            if absent := sorted(listed - set(files)):
                remarks.append(counted(str(path), "files that it names are not there", absent))
        return [_recording(file, published.get(file, ["train"])) for file in files], remarks

    def _list(self, path: Path) -> set[str]:
        if not path.is_file():
            raise ValueError(f"data.root={self.config.root}: {path} is missing; unpack the archive again.")
        try:
            return set(path.read_text(encoding="utf-8").split())
        except UnicodeDecodeError as error:
            raise ValueError(f"{path} is not UTF-8 ({error}); unpack the archive again.") from None


def _recording(file: str, splits: Sequence[str]) -> Recording:
    path = PurePosixPath(file)
    # A recording that two lists claim would be trained on and tested with.
    defect = f"the lists put it into {' and '.join(splits)}" if len(splits) > 1 else ""
    return Recording(file, path.stem.split("_nohash_")[0], path.parent.name, split=splits[0], defect=defect)
