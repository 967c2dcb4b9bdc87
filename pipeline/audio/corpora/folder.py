"""Any tree of audio files."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

from pipeline.audio.corpora.configuration import FolderConfig
from pipeline.audio.corpora.corpus import FileCorpus, Recording
from pipeline.audio.corpora.options import existing_folder
from pipeline.audio.corpora.tables import counted
from pipeline.audio.corpora.transcripts import NO_TRANSCRIPTS, Transcripts, read_transcripts
from pipeline.plumbing.names import as_utf8, is_utf8

EXTENSIONS = (
    ".wav", ".wave", ".rf64", ".w64", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aiff", ".aif", ".aifc", ".au", ".snd",
    ".caf",
)  # fmt: skip
# Sound that no decoder here reads: passed over, but not in silence.
UNREAD_EXTENSIONS = (
    ".m4a", ".m4b", ".mp4", ".aac", ".3gp", ".wma", ".webm", ".mka", ".amr", ".ac3", ".dts", ".ape", ".wv", ".tta",
    ".mpc", ".spx", ".ra", ".sph", ".shn", ".dsf",
)  # fmt: skip


@dataclass(frozen=True)
class FolderCorpus(FileCorpus):
    """The audio files of a tree; hidden files and folders are left out, links are followed."""

    config: FolderConfig
    name = "folder"

    @cached_property
    def folder(self) -> Path:
        """The top of the tree."""
        return existing_folder(self.config.root)

    def recordings(self) -> list[Recording]:
        """Every audio file, sorted by its path; those that cannot be read as they are with the reason.

        Raises:
            ValueError: the folder or the transcripts are missing, hold nothing, or cannot be read.
        """
        return self._listing[0]

    def remarks(self) -> list[str]:
        """What is wrong with the transcripts."""
        return self._listing[1]

    @cached_property
    def _listing(self) -> tuple[list[Recording], list[str]]:
        found = dict(sorted(find_audio(self.folder)))
        if not found:
            raise ValueError(f"data.root={self.config.root}: {self.folder} holds no {', '.join(EXTENSIONS)} file.")
        transcripts, remarks = NO_TRANSCRIPTS, []
        if self.config.transcripts is not None:
            subject = f"data.transcripts={self.config.transcripts}"
            transcripts = read_transcripts(self.folder / self.config.transcripts, found.keys(), subject)
            remarks = list(transcripts.remarks)
        unread = [file for file, defect in found.items() if file.lower().endswith(UNREAD_EXTENSIONS) and defect]
        if unread:
            remarks.append(counted(f"data.root={self.config.root}", "files are in formats that are not read", unread))
        return [self._recording(file, defect, transcripts) for file, defect in found.items()], remarks

    def _recording(self, file: str, defect: str, transcripts: Transcripts) -> Recording:
        said = transcripts.of(file)
        speaker = said.speaker or self._speaker(PurePosixPath(file))
        return Recording(file, speaker, said.text, defect=defect or said.defect, note=said.note)

    def _speaker(self, file: PurePosixPath) -> str:
        if self.config.speaker_from == "file":
            return str(file)
        if self.config.speaker_from == "folder" and len(file.parts) > 1:
            return str(file.parent)
        return as_utf8(self.folder.name)


def find_audio(root: Path) -> Iterator[tuple[str, str]]:
    """Yield the audio files under `root` as relative paths with forward slashes, each with why it cannot be used.

    That is empty where nothing is known against a file. No folder is entered twice. A folder that cannot be listed is
    yielded like a file.

    Raises:
        ValueError: `root` itself cannot be listed.
    """
    closed: list[tuple[str, str]] = []

    def note(error: OSError) -> None:
        if Path(error.filename) == root:
            raise ValueError(f"data.root: {error.filename} cannot be listed ({error.strerror}).") from error
        name = as_utf8(Path(error.filename).relative_to(root).as_posix())
        closed.append((f"{name}/", f"the folder cannot be listed ({error.strerror})"))

    entered = set()
    for folder, subfolders, names in os.walk(root, followlinks=True, onerror=note):
        status = os.stat(folder)
        # A link may lead back to a folder above it.
        if (status.st_dev, status.st_ino) in entered:
            subfolders.clear()
            continue
        entered.add((status.st_dev, status.st_ino))
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        for name in names:
            if not name.startswith(".") and name.lower().endswith(EXTENSIONS + UNREAD_EXTENSIONS):
                relative = Path(folder, name).relative_to(root).as_posix()
                yield as_utf8(relative), _defect(relative)
    yield from closed


def _defect(file: str) -> str:
    if not is_utf8(file):
        return "its name is not UTF-8; rename the file or folder"
    extension = PurePosixPath(file).suffix.lower()
    if extension in UNREAD_EXTENSIONS:
        return f"{extension} is not read; convert it, to FLAC say"
    return ""
