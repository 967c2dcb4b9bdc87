"""What every corpus is to those who use it."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from pipeline.audio.reading import UnusableRecording, read_audio

__all__ = ["Corpus", "FileCorpus", "Recording", "UnusableRecording"]


@dataclass(frozen=True)
class Recording:
    """One audio file of a corpus.

    Attributes:
        id: its path relative to the corpus, with forward slashes.
        speaker: who speaks, as far as the corpus tells.
        transcript: what is said, where the corpus tells.
        split: `train`, `validation` or `test`, where the corpus publishes a split.
    """

    id: str
    speaker: str
    transcript: str | None = None
    split: str | None = None


class Corpus(Protocol):
    """A set of recordings; process pools send it about, so it pickles."""

    @property
    def name(self) -> str:
        """What the corpus is called in `data.kind` and in reports."""
        ...

    def recordings(self) -> list[Recording]:
        """All recordings, in an order that does not depend on the file system.

        Raises:
            ValueError: the corpus is not where the configuration says, or is incomplete.
        """
        ...

    def read(self, recording: Recording) -> tuple[np.ndarray, int]:
        """The samples [S] of one recording, float32 mono, and its sample rate in Hz.

        Raises:
            UnusableRecording: the file cannot be read.
        """
        ...


class FileCorpus(ABC):
    """A corpus whose recordings are files under one folder, named by their relative paths."""

    @property
    @abstractmethod
    def folder(self) -> Path:
        """Where the ids start."""

    def read(self, recording: Recording) -> tuple[np.ndarray, int]:
        """The samples [S] of one recording, float32 mono, and its sample rate in Hz.

        Raises:
            UnusableRecording: the file cannot be read.
        """
        return read_audio(self.folder / recording.id)
