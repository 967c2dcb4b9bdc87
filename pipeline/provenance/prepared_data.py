"""What prepared data say of themselves, and whether they are what a configuration asks for."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline.audio.splitting import SPLITS
from pipeline.plumbing.files import read_json, write_json
from pipeline.plumbing.fingerprint import fingerprint
from pipeline.plumbing.locations import scheme_of
from pipeline.plumbing.nested import ABSENT, differing, leaves
from pipeline.provenance.digests import digest_of
from pipeline.provenance.exports import CODEC

IDENTITY = "identity.json"
FORMAT_VERSION = 1
GROUPS = ("data", "codec")
# Settings that change no byte of what is prepared: how the work is portioned, and what is refused.
INCIDENTAL = ("data.workers", "data.download", "data.screening.max_rejected_fraction", "codec.batch_seconds")
TAKEN_FROM = "codec.taken_from"
# Settings that change nothing as long as they have these values: data from before there were any are the same.
NEUTRAL = {"codec.device": "cpu", "codec.fit_hours": None, TAKEN_FROM: None}
# Paths, which may be written in more than one way.
PATHS = (
    "data.root", "data.path", "data.validation_path", "data.test_path", "data.supervisions", "data.audio_root",
    TAKEN_FROM,
)  # fmt: skip
# The folder in the cache that holds the data of sweeps, a folder for each combination of settings.
COMBINATIONS = "combinations"
# That of copies of data which lie behind a URL.
COPIES = "remote"


@dataclass(frozen=True)
class PreparedIdentity:
    """What a folder of prepared data is.

    Attributes:
        settings: every setting that decides on its bytes, {dotted name: value}.
        digest: of tokens and codec.
        codec: of the codec alone: two with equal digests speak the same tokens.
    """

    settings: Mapping[str, Any]
    digest: str
    codec: str

    @property
    def name(self) -> str:
        """A short name for these settings, which folders are called by."""
        return settings_name(self.settings)

    @property
    def recordings(self) -> str:
        """A short name for the corpus and its splits, equal where the codec alone is another."""
        return settings_name({name: value for name, value in self.settings.items() if name.startswith("data.")})


def prepared_settings(values: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a configuration that decide on the bytes of prepared data, {dotted name: value}."""
    return deciding_settings(dict(leaves({group: values[group] for group in GROUPS})))


def deciding_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Those of a training's settings that decide on the bytes of its data, {dotted name: value}."""
    prefixes = tuple(f"{group}." for group in GROUPS)
    own = {name: value for name, value in sorted(settings.items()) if name.startswith(prefixes)}
    return {
        name: value
        for name, value in own.items()
        if name not in INCIDENTAL and (name not in NEUTRAL or value != NEUTRAL[name])
    }


def settings_name(settings: Mapping[str, Any]) -> str:
    """A short name for the settings of prepared data, equal wherever the settings are."""
    return fingerprint(_comparable(settings))[:16]


def write_prepared_identity(folder: Path, settings: Mapping[str, Any]) -> PreparedIdentity:
    """Complete finished data in `folder` by what they are."""
    identity = PreparedIdentity(dict(settings), *_digests(folder))
    write_json(folder / IDENTITY, {"format": FORMAT_VERSION, **asdict(identity)})
    return identity


def read_prepared_identity(folder: Path, remedy: str = "python -m pipeline.prepare_data") -> PreparedIdentity:
    """What the data in `folder` say of themselves.

    Args:
        folder: of prepared data.
        remedy: the command that prepares them.

    Raises:
        FileNotFoundError: when there are none.
        ValueError: when they do not say, as those of earlier versions, or are not what they say.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} does not exist; prepare the data: {remedy}")
    path = folder / IDENTITY
    if not path.exists():
        # Taken on trust they would be what this file is against: figures under the name of data they are not from.
        raise ValueError(f"{folder} does not say what it was prepared from (no {IDENTITY}); prepare it again: {remedy}")
    content = read_json(path)
    try:
        if content.pop("format") != FORMAT_VERSION:
            raise TypeError("another format")
        identity = PreparedIdentity(**content)
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is no identity of prepared data ({error}); prepare them again: {remedy}") from error
    if _digests(folder) != (identity.digest, identity.codec):
        raise ValueError(f"{folder} does not hold the data that {path} describes; prepare them again: {remedy}")
    return identity


def differences(found: Mapping[str, Any], asked: Mapping[str, Any]) -> list[str]:
    """One clause for each setting in which prepared data differ from what is asked for."""
    return [
        f"{name} is {there} there and {wanted} in the configuration"
        for name, (there, wanted) in differing_settings(found, asked).items()
    ]


def differing_settings(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The settings in which prepared data differ, {name: both values as they were written}.

    Where the kind of corpus or codec is another, the settings that only one of the two has go without saying.
    """
    changed = differing(_comparable(a), _comparable(b))
    other_kinds = {name.removesuffix("kind") for name in changed if name in ("data.kind", "codec.kind")}

    def goes_without_saying(name: str) -> bool:
        return any(name.startswith(group) and name != f"{group}kind" for group in other_kinds)

    return {name: (a.get(name, ABSENT), b.get(name, ABSENT)) for name in changed if not goes_without_saying(name)}


def require_prepared(folder: Path, settings: Mapping[str, Any], remedy: str) -> PreparedIdentity:
    """What the data in `folder` are, once it is certain that they were prepared with these settings.

    Args:
        folder: of prepared data.
        settings: as `prepared_settings` gives them.
        remedy: the command that prepares what is asked for.

    Raises:
        FileNotFoundError, ValueError: naming what differs, and the remedy.
    """
    identity = read_prepared_identity(folder, remedy)
    if found := differences(identity.settings, settings):
        raise ValueError(f"{folder} holds other data than asked for: {'; '.join(found)}. Prepare them: {remedy}")
    source = settings.get(TAKEN_FROM)
    if source is not None and Path(source, CODEC).is_dir() and digest_of(Path(source, CODEC)) != identity.codec:
        raise ValueError(f"{folder} speaks through another codec than {source} does now. Prepare it again: {remedy}")
    return identity


def fits(folder: Path, settings: Mapping[str, Any]) -> bool:
    """Whether `folder` holds whole data that were prepared with these settings."""
    try:
        require_prepared(folder, settings, "")
    except (FileNotFoundError, ValueError):
        return False
    return True


def combination_folder(cache: Path, name: str) -> Path:
    """Where data of the settings of this name lie, which a sweep prepared."""
    return cache / COMBINATIONS / name


def copy_folder(cache: Path, digest: str) -> Path:
    """Where the copy of data of this digest lies that a training has fetched from a URL."""
    return cache / COPIES / digest[:16]


def find_prepared(digest: str, name: str, usual: Path, cache: Path, recorded: Path | None = None) -> Path | None:
    """The folder that holds certain data; None where there is none.

    Args:
        digest: of the data.
        name: of their settings.
        usual: a folder that is looked into first.
        cache: where those of sweeps lie, and copies of those behind a URL.
        recorded: where they lay when they were trained on.
    """
    for folder in (usual, combination_folder(cache, name), copy_folder(cache, digest), recorded):
        if folder and (folder / IDENTITY).exists() and read_prepared_identity(folder).digest == digest:
            return folder
    return None


def _digests(folder: Path) -> tuple[str, str]:
    """The digests of all and of the codec; tokens are known by the checksums in their index."""
    codec = digest_of(folder / CODEC)
    return fingerprint({split: read_json(folder / split / "index.json") for split in SPLITS}, codec), codec


def _comparable(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with paths written in one way; a URL is written in one."""
    return {
        name: str(Path(value).resolve()) if name in PATHS and isinstance(value, str) and not scheme_of(value) else value
        for name, value in settings.items()
    }
