"""Which training a result is from: written beside it, and compared by the stages that take it up."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pipeline.plumbing.files import companion, read_json, write_json
from pipeline.provenance.digests import digest_of

IDENTITY = "identity.json"
FORMAT_VERSION = 1
SHORT = 12


@dataclass(frozen=True)
class TrainingIdentity:
    """A training, told from any other by digests: equal ones have equal weights.

    No name is random here, so that a training that is repeated on the same hardware is the same one.

    Attributes:
        data: of the tokens and the codec.
        codec: of the codec alone.
        settings: the name of the settings that the data were prepared with.
        configuration: of everything that determines the training.
        checkpoint: of the checkpoint's bytes; empty inside the checkpoint itself.
        sequence_length: tokens of its windows: no token has learnt to look further back. 0: unknown.
    """

    data: str
    codec: str
    settings: str
    configuration: str
    checkpoint: str = ""
    sequence_length: int = 0

    @property
    def context(self) -> int | None:
        """What scoring and generation let a token look back over; None: everything."""
        return self.sequence_length or None

    def __str__(self) -> str:
        return f"checkpoint {self.checkpoint[:SHORT]}"

    def inside(self) -> dict[str, str | int]:
        """What the training's checkpoints say: everything but their own digest."""
        return asdict(replace(self, checkpoint=""))

    def tags(self) -> dict[str, str]:
        """Tags by which a tracked run is found from a file."""
        return {f"identity.{name}": str(value) for name, value in asdict(self).items() if value}


@dataclass(frozen=True)
class Identity:
    """What a stage's result says of itself.

    Attributes:
        training: whose weights it is from; None: nobody knows, as of a stranger's checkpoint.
        follows_training: whether it was made from what the training stage had left, and not from a source by name.
        data: the digest of the data it was measured on, where it was.
        configuration: the digest of the settings it was made with, where they matter.
        recordings: what was held out of which corpus, as `PreparedIdentity.recordings` says it, where it was measured.
    """

    training: TrainingIdentity | None
    follows_training: bool = False
    data: str = ""
    configuration: str = ""
    recordings: str = ""


def write_identity(path: Path, identity: Identity) -> None:
    """Write an identity; a stage does so last, when everything else of its result is in its place."""
    write_json(path, {"format": FORMAT_VERSION, **asdict(identity)})


def read_identity(path: Path) -> Identity | None:
    """Read an identity; None where there is none, as with the results of others and of earlier versions.

    Raises:
        ValueError: when the file is damaged.
    """
    if not path.exists():
        return None
    try:
        content = dict(read_json(path))
        if content.pop("format") != FORMAT_VERSION:
            raise TypeError("another format")
        training = content.pop("training")
        return Identity(None if training is None else TrainingIdentity(**training), **content)
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is no identity of a result ({error}); run the stage that writes it again.") from error


def identity_path(result: Path) -> Path:
    """Where the identity of a converted checkpoint lies: in its folder, or beside its single file."""
    return companion(result, IDENTITY)


def identify_checkpoint(path: Path, inside: Mapping[str, Any] | None) -> TrainingIdentity | None:
    """Which training a checkpoint is from; None where neither it nor a file beside it says so.

    Args:
        path: a file or folder.
        inside: what a training's own checkpoint says of itself; it cannot name its own digest.

    Raises:
        ValueError: when one of the two is damaged.
    """
    if found := read_identity(identity_path(path)):
        return found.training
    if inside is None:
        return None
    try:
        return replace(TrainingIdentity(**inside), checkpoint=digest_of(path))
    except TypeError as error:
        raise ValueError(f"{path} holds an identity that is none ({error}); take another checkpoint.") from error


def require_current(result: Path, identity: Identity | None, latest: Identity | None, remedy: str) -> None:
    """Refuse a result that was made from what the training stage had left, where that is another training by now.

    Args:
        result: where it lies.
        identity: what it says of itself.
        latest: what the training's outputs say of themselves.
        remedy: the command that makes it anew.

    Raises:
        ValueError: naming both trainings, and the remedy.
    """
    if identity is None or not identity.follows_training or latest is None or identity.training == latest.training:
        return
    raise ValueError(
        f"{result} is from another training ({identity.training}) than the latest one ({latest.training}); "
        f"make it anew: {remedy}"
    )
