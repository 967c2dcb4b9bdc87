"""Rehearsals for many layouts, of which few have to be held."""

from dataclasses import replace

from lightning_modules.model.configuration import DecoderConfig
from pipeline.planning.rehearsal import Rehearsal, rehearse
from pipeline.planning.settings import GpuConfig, Layout, PlannedTraining

# Ranks of a rehearsal. What it counts depends on how many experts a rank holds and, beside the gradients that are
# counted apart, hardly on how many ranks share a parameter; sharding over thousands takes seconds a layout.
REHEARSED_RANKS = 256


class Rehearsals:
    """Rehearsals of one training and its economies, each held once: layouts that spread experts alike share one.

    Args:
        gpu: what the training runs on.
    """

    def __init__(self, gpu: GpuConfig) -> None:
        self.gpu = gpu
        self._held: dict[tuple[Layout, str, bool], Rehearsal] = {}

    def of(self, training: PlannedTraining, layout: Layout) -> Rehearsal:
        """The rehearsal of just as many experts on a rank; only what is recomputed and reduced may have changed."""
        small = _small(training.decoder, layout)
        key = small, training.recompute, training.keeps_whole_gradients
        if key not in self._held:
            self._held[key] = rehearse(training, small, self.gpu)
        return self._held[key]


def _small(config: DecoderConfig, layout: Layout) -> Layout:
    """Fewer ranks with as many experts each.

    It is as if replicas shared their experts too: that adds the buffers of sharing where there would be none.
    """
    sharing = layout.dp_replicate * layout.dp_shard
    most = min(sharing, max(2, REHEARSED_RANKS // (layout.ep * layout.cp)))
    divides = (n for n in range(most, 0, -1) if all(side % (n * layout.cp) == 0 for side in expert_sides(config)))
    return replace(layout, dp_replicate=1, dp_shard=next(n for n in divides if sharing % n == 0))


def expert_sides(config: DecoderConfig) -> list[int]:
    """The sides of experts' matrices that are split over `dp_shard` and `cp`."""
    return [config.hidden_size, *(2 * size for size in config.segment_sizes)]
