"""Which training is which: what its result depends on, and nothing else."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning_modules.parallel.checkpoint_folder import META_FILE, index_digest, is_sharded
from pipeline.plumbing.fingerprint import fingerprint
from pipeline.provenance.digests import digest_of

# What decides the outcome of a training, beside the data.
DECISIVE_GROUPS = ("model", "optimizer", "schedule", "precision", "seed")
# Settings of the trainer that decide where and how fast it runs, in which portions, what it writes down, how often it
# saves, and what it does about steps gone wrong: any may change when an interrupted training goes on. What the portions
# add up to is decisive; so is when it validates, since the best of the validated steps is the result.
INCIDENTAL = (
    "accelerator",
    "batch_size",
    "accumulate_grad_batches",
    "global_batch",
    "log_every_steps",
    "checkpoint_every_steps",
    "keep_last",
    "ema_offload",
    "recompute",
    "compile",
    "cuda_graph",
    "anomalies",
)


def training_identity(values: Mapping[str, Any], data: Any, n_readers: int) -> dict[str, Any]:
    """What a training is determined by: not its strategy, nor how ranks divide the batch of an optimizer step.

    Args:
        values: the whole configuration.
        data: what the tokens are told from others by.
        n_readers: ranks, where those that share windows count as one.

    Raises:
        FileNotFoundError: when there is no checkpoint at `trainer.start_from`.
    """
    trainer = values["trainer"]
    identity = {name: values[name] for name in DECISIVE_GROUPS}
    identity["trainer"] = {name: value for name, value in trainer.items() if name not in INCIDENTAL}
    if (start_from := trainer.get("start_from")) is not None:
        identity["trainer"]["start_from"] = _content_of(Path(start_from))
    identity["global_batch"] = n_readers * trainer["batch_size"] * trainer["accumulate_grad_batches"]
    identity["data"] = data
    return identity


def _content_of(checkpoint: Path) -> str:
    """What tells a checkpoint from others, wherever it lies; every save of a sharded one writes an index of its own."""
    if not checkpoint.exists():
        raise FileNotFoundError(
            f"trainer.start_from: {checkpoint} does not exist; name the checkpoint of an earlier training, as "
            "outputs/train/checkpoint.ckpt, or null to begin with random weights."
        )
    if is_sharded(checkpoint):
        return fingerprint(index_digest(checkpoint), digest_of(checkpoint / META_FILE))
    return digest_of(checkpoint)
