"""The stage as a library: from the `data` and `codec` groups to finished data in a folder."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from pipeline.audio.codecs.configuration import CodecUse, codec_use
from pipeline.plumbing.files import sweep
from pipeline.preparation.configuration import ALL, SHARED, PreparationConfig, RayConfig, read_data, read_preparation
from pipeline.preparation.engines.registry import build_engine
from pipeline.preparation.steps import Preparation
from pipeline.preparation.taken_codec import taken_codec
from pipeline.provenance.prepared_data import combination_folder, fits, prepared_settings, settings_name

log = logging.getLogger(__name__)


def prepare(values: Mapping[str, Any], prepared: Path, cache: Path) -> dict[str, Any] | None:
    """Write `prepared`, whole or not at all, or do the one step towards it that the configuration names.

    Another process that prepares with the same cache is waited for; steps in parts are done side by side.

    Args:
        values: the configuration, of which `data`, `codec` and `preparation` count.
        prepared: the folder, which is replaced.
        cache: where an interrupted call leaves what it has done, and the next one finds it.

    Returns:
        The data card; None where there is more to do.

    Raises:
        ValueError: a setting cannot be, too much of the corpus cannot be used, or an earlier step is not complete.
        RuntimeError: a shard could not be computed.
    """
    config = read_preparation(values["preparation"])
    preparation = _preparation(values, prepared, cache, config)
    cache.mkdir(parents=True, exist_ok=True)
    if config.step in SHARED:
        preparation.do(config.step)
        return None
    with _sole_use(cache):
        for folder in (prepared, cache):
            sweep(folder)
        return preparation.do(config.step)


def prepare_combination(values: Mapping[str, Any], usual: Path, cache: Path) -> Path:
    """Find data as a job of a sweep asks for, or prepare them: each combination of settings once, whoever asks.

    Args:
        values: the configuration, of which `data` and `codec` count.
        usual: a folder that is looked into first.
        cache: where the folders of other combinations lie.

    Returns:
        The folder.

    Raises:
        ValueError: as `prepare` does.
    """
    settings = prepared_settings(values)
    own = combination_folder(cache, settings_name(settings))
    for folder in (usual, own):
        if fits(folder, settings):
            return folder
    with _sole_use(cache):
        # The process that was waited for may have prepared this very combination.
        if not fits(own, settings):
            log.info("Preparing %s for the jobs that share it.", own)
            config = replace(read_preparation(values["preparation"]), step=ALL, part=None)
            _preparation(values, own, cache, config).do(ALL)
    return own


def _preparation(values: Mapping[str, Any], prepared: Path, cache: Path, config: PreparationConfig) -> Preparation:
    workers = read_data(values["data"]).processing.workers
    _require_gpus(config, codec_use(values["codec"]))
    codec = taken_codec(values["codec"], cache)
    return Preparation(values, prepared, cache, build_engine(config, workers, cache), codec)


def _require_gpus(config: PreparationConfig, use: CodecUse) -> None:
    """Raise a ValueError where tasks are to encode on a GPU that they would not see."""
    if isinstance(config.engine, RayConfig) and use.device == "cuda" and not config.engine.gpus:
        raise ValueError(
            "codec.device=cuda: Ray hides the GPUs from tasks that ask for none; say which part of one a task takes, "
            "as preparation.gpus=0.125 for eight tasks that share one."
        )


@contextmanager
def _sole_use(cache: Path) -> Iterator[None]:
    """Wait until no other process prepares with this cache: each would use all cores, and write the same files."""
    cache.mkdir(parents=True, exist_ok=True)
    lock = FileLock(cache / "preparing.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        log.info("Another process prepares data in %s; waiting for it.", cache)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
