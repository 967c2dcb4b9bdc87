"""A codec that another corpus was prepared with, so that the tokens of both mean the same sounds."""

import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pipeline.audio.codecs.configuration import codec_differences, codec_settings, codec_use
from pipeline.audio.codecs.storage import SETTINGS_FILE, TENSORS_FILE, load_codec
from pipeline.plumbing.downloads import download_anew
from pipeline.plumbing.fingerprint import fingerprint
from pipeline.plumbing.locations import scheme_of
from pipeline.plumbing.redaction import redacted
from pipeline.provenance.exports import CODEC


def taken_codec(options: Mapping[str, Any], cache: Path) -> Path | None:
    """The folder of the codec that `codec.taken_from` names; None where a codec is fitted.

    Args:
        options: the `codec` group.
        cache: where a codec behind a URL is fetched to, each time anew.

    Raises:
        OSError, ValueError: there is none, it is damaged, or its settings are others than the group's.
    """
    source = codec_use(options).taken_from
    if source is None:
        return None
    folder = _fetched(source, cache) if scheme_of(source) else Path(source) / CODEC
    if not folder.is_dir():
        raise _missing(str(folder))
    fields, _ = load_codec(folder).state()
    theirs = {"kind": fields["kind"], **fields["config"]}
    ours = {"kind": options["kind"], **asdict(codec_settings(options))}
    if clauses := codec_differences(theirs, ours):
        raise ValueError(
            f"codec.taken_from: {redacted(source)} has another codec: {'; '.join(clauses)}. Set the same here."
        )
    return folder


def _fetched(source: str, cache: Path) -> Path:
    """The folder that the codec behind a URL is copied to."""
    location = f"{source.rstrip('/')}/{CODEC}"
    folder = cache / "taken_codecs" / fingerprint(location)[:16]
    try:
        for name in (TENSORS_FILE, SETTINGS_FILE):
            download_anew(f"{location}/{name}", folder / name)
    except FileNotFoundError:
        raise _missing(redacted(location)) from None
    return folder


def _missing(place: str) -> FileNotFoundError:
    return FileNotFoundError(
        f"codec.taken_from: {place} does not exist; name prepared data, or an export: a folder, or its URL."
    )


def copy_codec(source: Path, target: Path) -> None:
    """Copy a codec byte for byte: it is known by its digest. What tells that it is there comes last."""
    target.mkdir(parents=True, exist_ok=True)
    for name in (TENSORS_FILE, SETTINGS_FILE):
        shutil.copyfile(source / name, target / name)
