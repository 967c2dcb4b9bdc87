"""LibriSpeech: `{subset}/{reader}/{chapter}/{reader}-{chapter}-{utterance}.flac`, 16 kHz."""

from dataclasses import dataclass
from pathlib import Path

import torchaudio.datasets

from pipeline.audio.corpora.configuration import SubsetConfig
from pipeline.audio.corpora.corpus import Recording
from pipeline.audio.corpora.published import SubsetDataset


@dataclass(frozen=True)
class LibriSpeech(SubsetDataset):
    """One subset of LibriSpeech."""

    config: SubsetConfig
    name = "librispeech"
    prefixes = ("LibriSpeech",)

    def fetch(self, folder: Path) -> None:
        """Download and unpack the subset into an empty folder, through torchaudio."""
        torchaudio.datasets.LIBRISPEECH(folder, self.config.subset, download=True)

    def recordings(self) -> list[Recording]:
        """All recordings, sorted by their paths.

        Raises:
            ValueError: the subset holds none, or a chapter lacks its transcripts.
        """
        self.files(f"{self.config.subset}/*/*/*.flac")
        dataset = torchaudio.datasets.LIBRISPEECH(
            self.folder.parent, self.config.subset, folder_in_archive=self.folder.name
        )
        try:
            metadata = [dataset.get_metadata(index) for index in range(len(dataset))]
        except FileNotFoundError as error:
            raise ValueError(f"{self.folder} is incomplete ({error}); unpack the archive again.") from error
        return [
            Recording(Path(path).as_posix(), speaker=str(reader), transcript=transcript)
            for path, _, transcript, reader, _, _ in metadata
        ]
