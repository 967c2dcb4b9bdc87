"""Whether a training can fit its machine at all, asked before any memory is."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import psutil
import torch

from lightning_modules.model.configuration import DecoderConfig
from lightning_modules.parallel.all_gather import room_for_rows
from lightning_modules.parallel.row_bound import SPARE
from pipeline.planning.memory import MOMENT_BYTES
from pipeline.planning.settings import Layout, PlannedTraining
from pipeline.planning.shards import FP32_BYTES, n_local_parameters

GIB = 2**30
# Where Linux says how much memory a container may use.
CONTAINER_LIMIT = Path("/sys/fs/cgroup/memory.max")


def refuse_what_cannot_fit(training: PlannedTraining, layout: Layout, available: int) -> None:
    """Refuse a training whose least need exceeds the memory of a rank.

    Args:
        training: what is trained.
        layout: of its ranks.
        available: bytes of memory for one rank.

    Raises:
        ValueError: naming what needs how much, and the remedies.
    """
    need = least_bytes(training, layout)
    if (total := sum(need.values())) <= available:
        return
    parts = ", ".join(f"{size / GIB:,.1f} GiB for {name}" for name, size in need.items())
    raise ValueError(
        f"This training needs at least {total / GIB:,.1f} GiB of memory on every rank ({parts}), and there are "
        f"{available / GIB:,.1f} GiB; lower trainer.batch_size, trainer.sequence_length or the sizes of model.*, or "
        "spread it over more devices with strategy=expert_parallel (`python -m pipeline.plan` tells over how many)."
    )


def least_bytes(training: PlannedTraining, layout: Layout) -> Counter[str]:
    """What a rank cannot do without.

    That is weights, gradients and moments of its share, logits, the input of every block unless that is offloaded, and
    what comes out of experts' first products, unless whole blocks are recomputed. Multi-token prediction is left out.
    """
    n_local, config = least_parameters(training.decoder, layout), training.decoder
    # Muon keeps one moment of most.
    n_moments = 1 if training.optimizer == "muon" else 2
    a_parameter = FP32_BYTES + training.gradient_bytes + n_moments * MOMENT_BYTES[training.moments]
    a_parameter += training.gathered_bytes if training.has_working_weights else 0
    a_parameter += FP32_BYTES if training.averages_beside else 0
    # Where weights are 16 bits wide on a GPU, scores are of a few tokens at a time.
    n_scores = 0 if training.has_working_weights else config.vocab_size
    n_inputs = 1 if training.recompute == "blocks_offloaded" else config.num_hidden_layers
    n_activations = training.n_tokens // layout.cp * (config.hidden_size * n_inputs + n_scores)
    n_mixtures = 1 if training.recomputes_blocks else config.num_hidden_layers - config.first_k_dense_replace
    n_activations += n_mixtures * expert_rows(training, layout) * 2 * min(config.segment_sizes)
    return Counter(
        {
            "weights, gradients and the optimizer": n_local * a_parameter,
            "activations": n_activations * training.gathered_bytes,
        }
    )


def expert_rows(training: PlannedTraining, layout: Layout) -> int:
    """Rows of a layer that a rank's experts have room for: an equal share, or more where steps are recorded."""
    share = training.n_tokens // layout.cp * training.decoder.num_segments_per_tok
    are_stacks = len(set(training.decoder.segment_sizes)) == 1
    if training.gathers_tokens(layout) and training.is_recorded(layout) and are_stacks:
        return room_for_rows(layout.ep * share, layout.ep, SPARE)
    return share


def least_parameters(config: DecoderConfig, layout: Layout) -> int:
    """Numbers that a rank keeps, from decoders of one and two layers: blocks of a kind are alike, however many.

    Those of multi-token prediction are left out.
    """

    def count(n_layers: int, n_dense: int) -> int:
        few = replace(config, num_hidden_layers=n_layers, first_k_dense_replace=n_dense, num_nextn_predict_layers=0)
        return n_local_parameters(few, layout)

    n_dense = min(config.first_k_dense_replace, config.num_hidden_layers)
    one, both_dense, one_of_each = count(1, 1), count(2, 2), count(2, 1)
    return one + (n_dense - 1) * (both_dense - one) + (config.num_hidden_layers - n_dense) * (one_of_each - one)


def memory_of_a_rank(accelerator: str, ranks_here: int) -> int:
    """Bytes for each of the ranks on this machine: a GPU's own, or a share of the machine's or container's."""
    if accelerator == "gpu":
        return int(torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory)
    total = psutil.virtual_memory().total + psutil.swap_memory().total
    if CONTAINER_LIMIT.exists() and (limit := CONTAINER_LIMIT.read_text().strip()).isdigit():
        total = min(total, int(limit))
    return total // max(ranks_here, 1)
