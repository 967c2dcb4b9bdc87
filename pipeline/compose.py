"""Compose conf/ into params.yaml, or tell where params.yaml has gone stale.

    python -m pipeline.compose                     write params.yaml
    python -m pipeline.compose --check             exit with 1 when params.yaml is not what conf/ composes to

DVC never composes on `dvc repro`, and runs the check before its stages: an edit in conf/ would go unnoticed.
"""

import argparse
import glob
import os
import sys
from pathlib import Path
from typing import Any

import hydra
from omegaconf import OmegaConf

from pipeline.audio.corpora.configuration import corpus_settings
from pipeline.configuration.composed import CONF
from pipeline.configuration.model import check_model
from pipeline.entry.ending import Ending
from pipeline.plumbing.files import atomic_write
from pipeline.plumbing.locations import scheme_of
from pipeline.plumbing.nested import differing, leaves
from pipeline.preparation.configuration import read_data

PARAMS = Path("params.yaml")
REMEDY = (
    "Take conf/ with `python -m pipeline.compose`, or try values out with `dvc exp run -S key=value`, "
    "which composes them itself."
)


def compose() -> dict[str, Any]:
    """The default configuration, as conf/ composes to it."""
    with hydra.initialize_config_dir(str(CONF), version_base=None):
        config = hydra.compose("config")
    OmegaConf.resolve(config)
    values = OmegaConf.to_container(config)
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}


def write_params(path: Path) -> bool:
    """Compose conf/ into `path` with DVC's own composer, byte for byte as `dvc exp run` does.

    Returns:
        Whether that changed the file.

    Raises:
        ValueError: when the model cannot be; what was there before stays.
    """
    # DVC takes a second to import: only those who write pay for it.
    from dvc.utils.hydra import compose_and_dump

    before = path.read_bytes() if path.exists() else None
    with atomic_write(path) as temporary:
        compose_and_dump(str(temporary), str(CONF), None, "config", str(CONF.parent), [])
        check_written(temporary)
    return path.read_bytes() != before


def check_written(path: Path) -> None:
    """Refuse a composed configuration whose model cannot be built.

    Raises:
        ValueError: naming the key and the remedy.
    """
    values = OmegaConf.to_container(OmegaConf.load(path))
    assert isinstance(values, dict)
    if "model" in values:
        check_model({str(key): value for key, value in values.items()})


def check_corpus(path: Path) -> None:
    """Refuse a corpus that DVC cannot watch; it would only say that there is no such file.

    Raises:
        FileNotFoundError: naming the key and the remedy.
    """
    values = OmegaConf.to_container(OmegaConf.load(path))
    assert isinstance(values, dict)
    corpus = values.get("paths", {}).get("corpus")
    if is_watchable(corpus):
        return
    if glob.has_magic(corpus) or "{" in corpus:
        remedy = "a pattern is nothing to watch: set paths.corpus to the folder of its files, or to one that lists them"
    else:
        remedy = "correct the path, write it without ~, and make the folder first where data.download is to fill it"
        data = read_data(values["data"])
        remedy = getattr(corpus_settings(data.kind, data.options), "remedy", remedy)
    raise FileNotFoundError(f"paths.corpus is {corpus}, where there is nothing that DVC could watch; {remedy}.")


def check_prepared_elsewhere(path: Path) -> None:
    """Refuse prepared data that are to be mixed, or whose codec is to be taken, and are not there.

    Raises:
        FileNotFoundError: naming the key and the remedy.
    """
    values = OmegaConf.to_container(OmegaConf.load(path))
    assert isinstance(values, dict)
    for group, setting, name in (("codec", "taken_from", "codec"), ("feed", "mixture", "mixture")):
        watched = values.get("paths", {}).get(name)
        if values.get(group, {}).get(setting) and not is_watchable(watched):
            raise FileNotFoundError(
                f"{group}.{setting} leads to {watched}, which does not exist; prepare these data first, or correct the "
                "path."
            )


def is_watchable(location: str | None) -> bool:
    """Whether DVC finds something there, or has nothing to look for."""
    # What lies elsewhere it watches there.
    return location is None or bool(scheme_of(location)) or Path(location).exists() or is_brought(location)


def is_brought(location: str) -> bool:
    """Whether DVC itself brings what is not there: a stage makes it, or `dvc add` has kept it, all of it or a part."""
    # Takes seconds: only those ask who would be refused otherwise.
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with Repo() as repository:
            return bool(repository.find_outs_by_path(location, recursive=True, strict=False))
    except DvcException:
        return False


def stale_values(path: Path) -> list[str]:
    """One line for each value in which `path` differs from what conf/ composes to."""
    if not path.exists():
        return [f"{path} does not exist"]
    # Plain values: a config object refuses to show one that has yet to be given.
    written, composed = dict(leaves(OmegaConf.to_container(OmegaConf.load(path)))), dict(leaves(compose()))
    return [
        f"{key} is {ours!r} in {path}, {theirs!r} in conf/"
        for key, (ours, theirs) in differing(written, composed).items()
    ]


def main() -> None:
    """Run the command line."""
    ending = Ending()
    with ending.of_command():
        sys.exit(run(ending))


def run(ending: Ending) -> int:
    """Do what the command line asks for, and return the status of the process."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.compose", description="Compose conf/ into params.yaml.")
    parser.add_argument("--check", action="store_true", help="only tell whether params.yaml is up to date")
    parser.add_argument("--traceback", action="store_true", help="show where an error came from")
    arguments = parser.parse_args()
    ending.show_traceback = arguments.traceback
    if not arguments.check:
        changed = write_params(PARAMS)
        print(f"{PARAMS} {'composed anew from' if changed else 'is up to date with'} conf/")
        return 0
    if PARAMS.exists():
        check_written(PARAMS)
        check_corpus(PARAMS)
        check_prepared_elsewhere(PARAMS)
    # An experiment's params.yaml differs on purpose: DVC has just composed it with the experiment's own values.
    stale = [] if "DVC_EXP_NAME" in os.environ else stale_values(PARAMS)
    if not stale:
        return 0
    print(f"ERROR: {PARAMS} is not what conf/ composes to:", *stale, sep="\n  ", file=sys.stderr)
    print(REMEDY, file=sys.stderr)
    return 1


if __name__ == "__main__":
    main()
