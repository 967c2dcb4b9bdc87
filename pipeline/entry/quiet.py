"""What libraries say that tells a user nothing, gathered in one place. Their warnings of what goes wrong stay."""

import logging
import os
import warnings

from pipeline.plumbing.rank import rank_of_this_process

# Lightning tells of every device that is not there, of every checkpoint that it loads, and of products.
TALKATIVE = (
    *(f"lightning.pytorch.{room}" for room in ("trainer", "utilities", "callbacks", "strategies", "loops", "plugins")),
    *(f"lightning.fabric.{room}" for room in ("utilities", "strategies", "plugins")),
)
# What cannot be counted without triton is nothing that we count.
ABOUT_TRITON = "torch.utils.flop_counter"
# Libraries that announce what their next versions will do; the versions here are pinned.
PINNED = ("lightning", "torch", "torchao", "transformers", "mlflow", "sklearn", "joblib")
BESIDE_THE_POINT = (
    # The sampler begins at the right batch by itself, which Lightning cannot know.
    ".*dataloader is not resumable.*",
    # Workers would only cost time: a window is cut out of mapped memory.
    ".*does not have many workers.*",
    # It is where an interrupted training goes on.
    ".*exists and is not empty.*",
    # On a login node, in an allocation, on a machine that only has SLURM installed.
    ".*The `srun` command is available on your system but is not used.*",
)


def quieten() -> None:
    """Let libraries speak of what goes wrong, and of nothing else, in this process."""
    for name in TALKATIVE:
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger(ABOUT_TRITON).setLevel(logging.ERROR)
    for package in PINNED:
        for category in (FutureWarning, DeprecationWarning, PendingDeprecationWarning):
            warnings.filterwarnings("ignore", category=category, module=rf"{package}(\.|$)")
    for message in BESIDE_THE_POINT:
        warnings.filterwarnings("ignore", message)
    if rank_of_this_process() > 0:
        # All ranks would draw the same bars into one terminal. Tqdm asks once, when it is imported.
        os.environ["TQDM_DISABLE"] = "1"
