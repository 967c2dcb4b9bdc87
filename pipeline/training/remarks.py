"""What is said of the data and the ranks before a training begins."""

import logging

from lightning_modules.data_module import SpeechTokens
from lightning_modules.mixture import MixedWindows
from lightning_modules.packing import PackedDocuments
from lightning_modules.parallel.slurm import allotted_tasks
from pipeline.training.division import Division
from pipeline.training.feed import Feed

log = logging.getLogger(__name__)


def say_what_comes(feed: Feed, data: SpeechTokens, division: Division) -> None:
    """Say what may surprise of the data and the ranks."""
    _say_mixture(feed)
    if not division.trainer.attend_across_documents:
        _say_reach(data.train_windows)
    _say_idle_tasks(division.n_ranks)


def _say_mixture(feed: Feed) -> None:
    """Say what corpora have in common, and which documents are not read to their end."""
    for duplicates in feed.describe_duplicates():
        log.warning("%s", duplicates)
    if (capped := feed.describe_capped()) is not None:
        log.info("%s", capped)


def _say_reach(windows: PackedDocuments | MixedWindows) -> None:
    """Say where windows and documents do not fit each other."""
    for name, packed in windows.corpora.items() if isinstance(windows, MixedWindows) else [("", windows)]:
        prefix = f"{name}: " if name else ""
        if (cuts := packed.describe_cuts()) is not None:
            log.info("%s%s", prefix, cuts)
        if (shortness := packed.describe_shortness()) is not None:
            log.warning("%s%s", prefix, shortness)


def _say_idle_tasks(n_ranks: int) -> None:
    """Say where SLURM holds more tasks than train."""
    if allotted_tasks() > n_ranks:
        log.warning(
            "SLURM allotted %d tasks, and this training uses %d: `srun`, in front of the command, starts it on all.",
            allotted_tasks(),
            n_ranks,
        )
