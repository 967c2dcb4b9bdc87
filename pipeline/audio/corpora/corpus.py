"""What every corpus is to those who use it."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from pipeline.audio.source import Source


@dataclass(frozen=True)
class Recording:
    """One audio file of a corpus, or a part of one.

    Attributes:
        id: its path relative to the corpus, with forward slashes, and what tells apart the parts of a file.
        speaker: who speaks, as far as the corpus tells.
        transcript: what is said, where the corpus tells.
        split: `train`, `validation` or `test`, where the corpus publishes a split.
        defect: why it cannot be used, as far as the corpus tells without opening it; empty where it can.
        note: what else the corpus has to say of it.
        source: where its sound lies, where the id does not tell.
    """

    id: str
    speaker: str
    transcript: str | None = None
    split: str | None = None
    defect: str = ""
    note: str = ""
    source: Source | None = None


class Corpus(Protocol):
    """A set of recordings; process pools send it about, so it pickles."""

    @property
    def name(self) -> str:
        """What the corpus is called in `data.kind` and in reports."""
        ...

    def recordings(self) -> Iterable[Recording]:
        """All recordings, one after another, in an order that does not depend on the file system.

        Raises:
            ValueError: the corpus is not where the configuration says, or is incomplete.
        """
        ...

    def remarks(self) -> list[str]:
        """What the corpus as a whole has to say, a sentence each: rows of its tables that name nothing, say."""
        ...

    def source(self, recording: Recording) -> Source:
        """Where the sound of a recording lies."""
        ...


class ListedCorpus(ABC):
    """A corpus whose recordings each tell where their sound lies."""

    @abstractmethod
    def recordings(self) -> Iterator[Recording]:
        """Yield the recordings in the order of the lists, in bounded memory but for what tells repeated ones.

        Raises:
            ValueError: a list cannot be read; the message names the file, the line and the field.
        """

    def remarks(self) -> list[str]:
        """Nothing: what a list has wrong is refused, or told of its recording."""
        return []

    def source(self, recording: Recording) -> Source:
        """Where the sound of a recording lies."""
        if recording.source is None:
            raise ValueError(f"{recording.id} does not tell where its sound lies.")
        return recording.source


class FileCorpus(ABC):
    """A corpus whose recordings are files under one folder, named by their relative paths."""

    @property
    @abstractmethod
    def folder(self) -> Path:
        """Where the ids start."""

    def remarks(self) -> list[str]:
        """Nothing, where a corpus has no tables."""
        return []

    def __getstate__(self) -> dict[str, Any]:
        # Process pools pickle the corpus with every recording: what was listed stays here.
        return {name: value for name, value in self.__dict__.items() if not name.startswith("_")}

    def path(self, recording: Recording) -> Path:
        """The file of a recording."""
        return self.folder / recording.id

    def source(self, recording: Recording) -> Source:
        """All of the recording's file."""
        return Source.of(self.path(recording))
