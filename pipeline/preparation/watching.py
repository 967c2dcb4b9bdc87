"""What DVC sees of a corpus that lies on a disk."""

import logging
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from pipeline.audio.corpora.corpus import Corpus, FileCorpus

log = logging.getLogger(__name__)

N_NAMED = 3


def warn_of_unwatched(corpus: Corpus, recordings: Iterable[str]) -> None:
    """Name the folders of a corpus in which DVC would not notice a change: those that are links.

    Args:
        corpus: that the recordings are of.
        recordings: their ids.
    """
    if not isinstance(corpus, FileCorpus):
        return
    links = linked_folders(corpus.folder, recordings)
    if links:
        listed = ", ".join(links[:N_NAMED]) + (f" and {len(links) - N_NAMED} more" if len(links) > N_NAMED else "")
        log.warning(
            "DVC does not look behind links to folders, as %s in %s: what changes there leaves the prepared data up to "
            "date for it. Let a listing stand for the corpus (docs/configuration.md, paths.corpus).",
            listed,
            corpus.folder,
        )


def linked_folders(root: Path, files: Iterable[str]) -> list[str]:
    """The folders below `root`, relative to it, that are links and hold some of the files."""
    folders = {folder for file in files for folder in PurePosixPath(file).parents}
    return sorted(str(folder) for folder in folders if folder.parts and (root / folder).is_symlink())
