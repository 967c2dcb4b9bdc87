"""What the published datasets have in common: found where they lie, or downloaded, and read file by file."""

import os
import tempfile
from abc import ABC, abstractmethod
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from pipeline.audio.corpora.configuration import DownloadConfig, RootConfig, SubsetConfig
from pipeline.audio.corpora.corpus import FileCorpus, Recording
from pipeline.audio.corpora.options import existing_folder
from pipeline.plumbing.names import as_utf8, is_utf8


class PublishedDataset(FileCorpus, ABC):
    """A dataset in the folders that its authors publish.

    `data.root` may be the folder that holds the dataset, as torchaudio has it, or the dataset itself.

    Attributes:
        name: what it is called in `data.kind`.
        config: its options.
        prefixes: the folders, relative to root, in which the dataset may lie.
    """

    name: ClassVar[str]
    prefixes: ClassVar[tuple[str, ...]]
    config: RootConfig
    remedy: ClassVar[str] = "correct data.root"

    @property
    @abstractmethod
    def landmark(self) -> str:
        """A file or folder by which the dataset's own folder is known; a glob pattern does as well."""

    @abstractmethod
    def recordings(self) -> list[Recording]:
        """All recordings, sorted by their paths."""

    @cached_property
    def folder(self) -> Path:
        """The dataset's own folder, where the ids start.

        Raises:
            ValueError: it is not there.
            RuntimeError: a download failed.
        """
        folder = self._obtain()
        if folder is None:
            root = existing_folder(self.config.root)
            expected = root / self.prefixes[0] / self.landmark
            raise ValueError(
                f"data.root={self.config.root} does not hold {self.name}: expected {expected}; {self.remedy}."
            )
        return folder

    def files(self, pattern: str) -> list[str]:
        """The files of a glob pattern, as sorted paths relative to the dataset's folder.

        Raises:
            ValueError: there are none, or a name is not UTF-8.
        """
        found = sorted(path.relative_to(self.folder).as_posix() for path in self.folder.glob(pattern))
        if not found:
            raise ValueError(
                f"data.root={self.config.root}: {self.folder} holds no {pattern}; unpack the archive again."
            )
        if strange := [name for name in found if not is_utf8(name)]:
            raise ValueError(f"data.root={self.config.root}: the name {as_utf8(strange[0])} is not UTF-8; rename it.")
        return found

    def _obtain(self) -> Path | None:
        """The folder under `data.root` that shows the landmark; None where there is none."""
        root = Path(self.config.root).expanduser().absolute()
        candidates = [root / prefix for prefix in (*self.prefixes, "")]
        if root.name == self.landmark:
            candidates.append(root.parent)
        return next((folder for folder in candidates if any(folder.glob(self.landmark))), None)


class DownloadableDataset(PublishedDataset):
    """A dataset that is fetched into `data.root` when it is not there and `data.download` is set."""

    config: DownloadConfig
    remedy = "correct data.root, or set data.download=true"

    @property
    def unpacks_to(self) -> str:
        """The folder that a download brings, relative to root."""
        return self.prefixes[0]

    @abstractmethod
    def fetch(self, folder: Path) -> None:
        """Download and unpack the dataset into an empty folder, through torchaudio."""

    def _obtain(self) -> Path | None:
        folder = super()._obtain()
        if folder is None and self.config.download:
            self._download()
            folder = super()._obtain()
        return folder

    def _download(self) -> None:
        """Download beside, then move into place, so that an interrupted download is never taken for the dataset."""
        root = Path(self.config.root).expanduser().absolute()
        target = root / self.unpacks_to
        if target.exists():
            raise ValueError(f"{target} is there, but without {self.landmark}; move it away to download it again.")
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=root, prefix=f".{self.name}.") as temporary:
            try:
                self.fetch(Path(temporary))
            # torchaudio lets through whatever the network, the archive or the disk raise.
            except Exception as error:
                raise RuntimeError(
                    f"data.download: fetching {self.name} into {root} failed ({type(error).__name__}: {error}); "
                    f"fetch it by other means, unpack it there, and set data.download=false."
                ) from error
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(Path(temporary, self.unpacks_to), target)


class SubsetDataset(DownloadableDataset):
    """A dataset that comes in subsets, each a folder of its own."""

    config: SubsetConfig

    @property
    def landmark(self) -> str:
        """The folder of the subset."""
        return self.config.subset

    @property
    def unpacks_to(self) -> str:
        """The folder that a download brings, relative to root: other subsets may lie beside it."""
        return f"{self.prefixes[0]}/{self.config.subset}"


def first_line(path: Path) -> tuple[str | None, str]:
    """The first line of a transcript, None where there is no such file; and what is to be said of it."""
    try:
        lines = path.read_bytes().splitlines()
    except FileNotFoundError:
        return None, ""
    except OSError as error:
        return None, f"its transcript cannot be read ({error.strerror})"
    try:
        return (lines[0].decode("utf-8").strip() if lines else None), ""
    except UnicodeDecodeError:
        return None, "its transcript is not UTF-8"
