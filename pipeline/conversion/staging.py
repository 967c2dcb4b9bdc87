"""A target takes its place only after the verdict: until then it lies in a folder beside, under its own name."""

import os
import shutil
from pathlib import Path
from typing import Any

from lightning_modules.parallel.checkpoint_folder import commit, partial_path, remove
from pipeline.audio.codecs.storage import load_codec
from pipeline.conversion.held_out import Surroundings
from pipeline.plumbing.files import companion, write_json
from pipeline.provenance.exports import CODEC
from pipeline.tokens.vocabulary import Vocabulary

REPORT = "conversion_report.json"
# What the name of a folder ends in that holds what was not accepted.
REJECTED = ".rejected"


class Staging:
    """The way of a target to its place.

    Attributes:
        target: the file or folder that it will be.
        path: where it is written and looked at first.
    """

    def __init__(self, target: Path) -> None:
        self.target = target
        self.folder = target.with_name(f".{target.name}.converting")
        self.folder.mkdir(parents=True, exist_ok=True)
        self.path = self.folder / target.name

    @property
    def rejected(self) -> Path:
        """The folder where what was not accepted lies."""
        return self.target.with_name(f"{self.target.name}{REJECTED}")

    def accept(self, report: dict[str, Any]) -> Path:
        """Give the target its place, the report in it or beside a single file; returns the report's path."""
        self._write(report)
        if self.path.is_dir():
            remove(partial_path(self.target))
            os.replace(self.path, partial_path(self.target))
            commit(self.target)
        else:
            for file in self.folder.iterdir():
                os.replace(file, self.target.with_name(file.name))
        remove(self.folder)
        remove(self.rejected)
        return report_path(self.target)

    def reject(self, report: dict[str, Any]) -> Path:
        """Leave the target where it can be looked at, in `rejected`, beside its place; returns the report's path."""
        self._write(report)
        remove(self.rejected)
        os.replace(self.folder, self.rejected)
        return report_path(self.rejected / self.target.name)

    def _write(self, report: dict[str, Any]) -> None:
        write_json(report_path(self.path), report)


def report_path(target: Path) -> Path:
    """Where the report of a conversion lies: in the target, or beside a single file."""
    return companion(target, REPORT)


def copy_codec(source: Path, target: Path, surroundings: Surroundings, vocab_size: int) -> list[str]:
    """Put the codec that a model speaks through beside its weights, so that the target is all one needs.

    Args:
        source: an export of ours brings its own codec along.
        target: a folder.
        surroundings: tell the codec that is taken otherwise.
        vocab_size: of the model.

    Returns:
        Why there is none to copy; nothing when it was copied.
    """
    places = (source / CODEC,) if surroundings.foreign else (source / CODEC, surroundings.codec)
    folder = next((place for place in places if place.is_dir()), None)
    if folder is None and surroundings.foreign:
        return [f"No codec lies beside the target: {surroundings.foreign}."]
    if folder is None:
        return [f"No codec lies beside the target: there is none in {source}, and no {surroundings.codec}."]
    codec = load_codec(folder)
    size = Vocabulary(codec.n_codebooks, codec.codebook_size).size
    if vocab_size not in (size, surroundings.padded_vocab_size):
        return [f"No codec lies beside the target: that in {folder} has {size} tokens, the model {vocab_size}."]
    shutil.copytree(folder, target / CODEC, dirs_exist_ok=True)
    return []
