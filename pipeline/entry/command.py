"""What makes a function a command: Hydra, the check of all settings, help, and errors in one sentence."""

import functools
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from pipeline.configuration.composed import CONF, REPOSITORY, Folders, plain
from pipeline.configuration.experiment import check_experiment
from pipeline.configuration.multirun import MultirunJob
from pipeline.entry.composition import refuse_parts
from pipeline.entry.ending import Ending
from pipeline.entry.help import help_text
from pipeline.entry.places import require_writable, say_where_paths_start
from pipeline.entry.positional import gathered
from pipeline.entry.quiet import quieten
from pipeline.entry.sweep_folder import with_folder

Work = Callable[[dict[str, Any], Folders], Any]
HELP = ("--help", "-h")
TRACEBACK = "--traceback"


def command(
    groups: tuple[str, ...], config_name: str = "config", writes: tuple[str, ...] = (), names: str | None = None
) -> Callable[[Work], Callable[..., Any]]:
    """Make a command of a function that takes the checked configuration, and the folders to read and write.

    Called with a composed configuration the command works on it and lets errors pass; called without, it reads the
    command line, and every error that a user can mend is told in one sentence and ends the process with status 2.

    Args:
        groups: those of conf/ that the command goes by, for its help.
        config_name: the file of conf/ that it composes.
        writes: the folders of `paths` that it writes to.
        names: the key of its configuration that takes the words of the command line which set nothing.
    """

    def decorate(work: Work) -> Callable[..., Any]:
        ending, module = Ending(), _module_of(work)

        def task(config: DictConfig) -> Any:
            if HydraConfig.initialized():
                refuse_parts(HydraConfig.get().runtime.choices)
            values = plain(config)
            check_experiment(values, config_name)
            folders = Folders.of(values)
            say_where_paths_start(values["paths"], REPOSITORY)
            for name in writes:
                require_writable(f"paths.{name}", folders.outputs if name == "outputs" else Path(values["paths"][name]))
            ending.has_begun = True
            quieten()
            return work(values, folders)

        def job(config: DictConfig) -> Any:
            if (this := MultirunJob.of_this_process()) is not None:
                with ending.of_job_among_others(", ".join(this.overrides)):
                    return task(config)
            with ending.of_job():
                return task(config)

        # Hydra names jobs after this.
        job.__module__ = module

        @functools.wraps(work)
        def main(config: DictConfig | None = None) -> Any:
            if config is not None:
                return task(config)
            if any(word in HELP for word in sys.argv[1:]):
                with ending.of_command():
                    print(help_text(sys.modules[work.__module__].__doc__ or "", groups, config_name), flush=True)
                return None
            if TRACEBACK in sys.argv:
                sys.argv.remove(TRACEBACK)
                ending.show_traceback = True
            if names is not None:
                sys.argv[1:] = gathered(sys.argv[1:], names)
            if module.endswith(".train"):
                sys.argv[1:] = with_folder(sys.argv[1:])
            # Hydra would print the error itself, and end with 1.
            os.environ["HYDRA_FULL_ERROR"] = "1"
            with ending.of_command():
                return hydra.main(version_base=None, config_path=str(CONF), config_name=config_name)(job)()

        return main

    return decorate


def _module_of(work: Work) -> str:
    """The module's own name, also when it runs as `__main__`."""
    spec = getattr(sys.modules[work.__module__], "__spec__", None)
    return str(spec.name) if spec else work.__module__
