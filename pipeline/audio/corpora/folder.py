"""Any tree of audio files."""

import csv
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

from pipeline.audio.corpora.configuration import FolderConfig
from pipeline.audio.corpora.corpus import FileCorpus, Recording
from pipeline.audio.corpora.options import existing_folder

EXTENSIONS = (".wav", ".flac", ".ogg", ".mp3")


@dataclass(frozen=True)
class FolderCorpus(FileCorpus):
    """The WAV, FLAC, OGG and MP3 files of a tree; hidden files and folders are left out, links are followed."""

    config: FolderConfig
    name = "folder"

    @cached_property
    def folder(self) -> Path:
        """The top of the tree."""
        return existing_folder(self.config.root)

    def recordings(self) -> list[Recording]:
        """Every audio file, sorted by its path.

        Raises:
            ValueError: the folder or the transcripts are missing, hold nothing, or cannot be read.
        """
        files = find_audio(self.folder)
        if not files:
            raise ValueError(f"data.root={self.config.root}: {self.folder} holds no {', '.join(EXTENSIONS)} file.")
        rows = self._read_transcripts()
        if rows and not rows.keys() & set(files):
            raise ValueError(
                f"data.transcripts={self.config.transcripts}: none of its files, as {next(iter(rows))}, is in "
                f"{self.folder}; give the column `file` relative to data.root."
            )
        return [self._recording(file, rows.get(file, {})) for file in files]

    def _recording(self, file: str, row: dict[str, str]) -> Recording:
        speaker = row.get("speaker") or self._speaker(PurePosixPath(file))
        return Recording(file, speaker=speaker, transcript=row.get("text"))

    def _speaker(self, file: PurePosixPath) -> str:
        if self.config.speaker_from == "file":
            return str(file)
        if self.config.speaker_from == "folder" and len(file.parts) > 1:
            return str(file.parent)
        return self.folder.name

    def _read_transcripts(self) -> dict[str, dict[str, str]]:
        """The rows of the transcripts, by file."""
        if self.config.transcripts is None:
            return {}
        path = self.folder / self.config.transcripts
        where = f"data.transcripts={self.config.transcripts}"
        try:
            with path.open(newline="", encoding="utf-8-sig") as file:
                reader = csv.DictReader(file, delimiter="\t" if path.suffix.lower() == ".tsv" else ",")
                rows = list(reader)
                columns = reader.fieldnames or []
        except OSError as error:
            raise ValueError(f"{where}: {path} cannot be read ({error.strerror}).") from None
        except (UnicodeDecodeError, csv.Error) as error:
            raise ValueError(f"{where}: {path} is no CSV or TSV file in UTF-8 ({error}).") from None
        for column in ("file", "text"):
            if column not in columns:
                raise ValueError(f"{where}: {path} has no column `{column}`; it has {', '.join(columns) or 'none'}.")
        return {str(PurePosixPath(row["file"])): row for row in rows if row["file"]}


def find_audio(root: Path) -> list[str]:
    """The audio files under `root`, as sorted relative paths with forward slashes; no folder is entered twice.

    Raises:
        ValueError: a folder cannot be listed, or a name is not UTF-8.
    """
    files, entered = [], set()
    for folder, subfolders, names in os.walk(root, followlinks=True, onerror=_refuse):
        status = os.stat(folder)
        # A link may lead back to a folder above it.
        if (status.st_dev, status.st_ino) in entered:
            subfolders.clear()
            continue
        entered.add((status.st_dev, status.st_ino))
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        for name in names:
            if name.lower().endswith(EXTENSIONS) and not name.startswith("."):
                files.append(_relative(Path(folder, name), root))
    return sorted(files)


def _relative(path: Path, root: Path) -> str:
    relative = path.relative_to(root).as_posix()
    try:
        relative.encode()
    except UnicodeEncodeError:
        raise ValueError(f"data.root: the name {relative!r} is not UTF-8; rename the file or folder.") from None
    return relative


def _refuse(error: OSError) -> None:
    raise ValueError(f"data.root: {error.filename} cannot be listed ({error.strerror}).") from error
