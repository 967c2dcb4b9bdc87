"""LJ Speech 1.1: `wavs/*.wav` and `metadata.csv`, one reader, 22.05 kHz."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torchaudio.datasets

from pipeline.audio.corpora.configuration import DownloadConfig
from pipeline.audio.corpora.corpus import Recording
from pipeline.audio.corpora.published import DownloadableDataset
from pipeline.audio.corpora.tables import Row, counted, read_table, width_checked


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
            ValueError: the metadata has no line that is `id|transcript|normalised transcript`.
        """
        return self._listing[0]

    def remarks(self) -> list[str]:
        """What is wrong with the metadata."""
        return self._listing[1]

    @cached_property
    def _listing(self) -> tuple[list[Recording], list[str]]:
        path = self.folder / self.landmark
        # As its authors write it: a quote is a quote, wherever it stands.
        table = width_checked(read_table(path, "|", quoted=False), 3)
        if not table.rows:
            broken = table.broken[0] if table.broken else "it is empty"
            raise ValueError(f"{path}: expected lines of id|transcript|normalised transcript, but {broken}.")
        said: dict[str, list[Row]] = {}
        for row in table.rows:
            said.setdefault(f"wavs/{row.cells[0]}.wav", []).append(row)
        there = {file.relative_to(self.folder).as_posix() for file in self.folder.glob("wavs/*.wav")}
        doubled = [f"line {row.line}: {row.cells[0]}" for rows in said.values() for row in rows[1:]]
        unnamed = sorted(there - said.keys())
        remarks = [
            counted(str(path), what, examples)
            for what, examples in (
                ("lines cannot be read", table.broken),
                ("lines name a recording again", doubled),
                ("recordings are in no line, and not used", unnamed),
            )
            if examples
        ]
        return [_recording(file, rows) for file, rows in sorted(said.items())], remarks


def _recording(file: str, rows: Sequence[Row]) -> Recording:
    if len({row.cells[2] for row in rows}) == 1:
        return Recording(file, speaker="LJ", transcript=rows[0].cells[2])
    lines = ", ".join(str(row.line) for row in rows)
    return Recording(file, speaker="LJ", note=f"lines {lines} of the metadata disagree on what is said")
