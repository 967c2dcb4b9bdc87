"""LibriSpeech: `{subset}/{reader}/{chapter}/{reader}-{chapter}-{utterance}.flac`, 16 kHz."""

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import torchaudio.datasets

from pipeline.audio.corpora.configuration import SubsetConfig
from pipeline.audio.corpora.corpus import Recording
from pipeline.audio.corpora.published import SubsetDataset
from pipeline.audio.corpora.tables import Row, read_table


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
        chapters: dict[PurePosixPath, dict[str, Row]] = {}
        recordings = []
        for file in self.files(f"{self.config.subset}/*/*/*.flac"):
            path = PurePosixPath(file)
            if path.parent not in chapters:
                chapters[path.parent] = self._transcripts(path.parent)
            row = chapters[path.parent].get(path.stem)
            if row is None:
                raise ValueError(
                    f"{self.folder} is incomplete (no transcript of {path.stem}); unpack the archive again."
                )
            recordings.append(Recording(file, speaker=path.parts[1], transcript=" ".join(row.cells[1:])))
        return recordings

    def _transcripts(self, chapter: PurePosixPath) -> dict[str, Row]:
        """The lines of a chapter's transcripts, by the recording that each begins with."""
        path = self.folder / chapter / f"{chapter.parts[1]}-{chapter.parts[2]}.trans.txt"
        try:
            table = read_table(path, " ", quoted=False)
        except OSError as error:
            raise ValueError(
                f"{self.folder} is incomplete ({path}: {error.strerror}); unpack the archive again."
            ) from None
        if table.broken:
            raise ValueError(f"{path}: {table.broken[0]}; unpack the archive again.")
        return {row.cells[0]: row for row in table.rows}
