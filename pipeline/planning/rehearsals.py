"""Rehearsals for many layouts, of which few have to be held."""

from collections import Counter
from dataclasses import replace

from lightning_modules.model.configuration import DecoderConfig
from pipeline.planning.live_memory import Segment
from pipeline.planning.rehearsal import Rehearsal, rehearse
from pipeline.planning.settings import GpuConfig, Layout, PlannedTraining

# Ranks of a rehearsal. What it counts depends on how many experts a rank holds and, beside the gradients that are
# counted apart, hardly on how many ranks share a parameter; sharding over thousands takes seconds a layout.
REHEARSED_RANKS = 256


class Rehearsals:
    """Rehearsals of one training, each held once: layouts that spread experts alike share one.

    Args:
        training: what is trained.
        gpu: what it runs on.
        layouts: all that will be asked for.
    """

    def __init__(self, training: PlannedTraining, gpu: GpuConfig, layouts: list[Layout]) -> None:
        self.training = training
        self.gpu = gpu
        self._held: dict[tuple[Layout, bool], Rehearsal] = {}
        exchanging = sorted({layout.ep for layout in layouts if layout.ep > 1 and not training.gathers_tokens(layout)})
        # A rank that holds all experts dispatches no tokens, one that gathers those of all has more the more there are.
        self._anchors = {layout.ep for layout in layouts} - set(exchanging)
        self._anchors |= {exchanging[place] for place in (0, len(exchanging) // 2, -1) if exchanging}

    def of(self, layout: Layout, recompute: bool) -> Rehearsal:
        """The rehearsal of just as many experts on a rank."""
        key = self._small(layout), recompute
        if key not in self._held:
            self._held[key] = rehearse(replace(self.training, recompute_activations=recompute), key[0], self.gpu)
        return self._held[key]

    def near(self, layout: Layout, recompute: bool) -> Rehearsal:
        """The rehearsal of as many experts on a rank, or one between those of more and of fewer.

        Whatever is allocated has a fixed size, or one in proportion to the experts on a rank, so that at any moment the
        sum lies on a line. The most over all moments is convex: in between it is at most what is returned here.
        """
        if layout.ep in self._anchors or (self._small(layout), recompute) in self._held:
            return self.of(layout, recompute)
        more = _with_ep(layout, max(ep for ep in self._anchors if ep < layout.ep))
        fewer = _with_ep(layout, min(ep for ep in self._anchors if ep > layout.ep))
        share = (1 / layout.ep - 1 / fewer.ep) / (1 / more.ep - 1 / fewer.ep)
        return _between(self._small(layout), self.of(more, recompute), self.of(fewer, recompute), share)

    def _small(self, layout: Layout) -> Layout:
        """Fewer ranks with as many experts each.

        It is as if replicas shared their experts too: that adds the buffers of sharing where there would be none.
        """
        sharing = layout.dp_replicate * layout.dp_shard
        most = min(sharing, max(2, REHEARSED_RANKS // (layout.ep * layout.cp)))
        sides = expert_sides(self.training.decoder)
        divides = (n for n in range(most, 0, -1) if all(side % (n * layout.cp) == 0 for side in sides))
        return replace(layout, dp_replicate=1, dp_shard=next(n for n in divides if sharing % n == 0))


def expert_sides(config: DecoderConfig) -> list[int]:
    """The sides of experts' matrices that are split over `dp_shard` and `cp`."""
    return [config.hidden_size, *(2 * size for size in config.segment_sizes)]


def _with_ep(layout: Layout, ep: int) -> Layout:
    return replace(layout, dp_replicate=1, dp_shard=layout.world_size // (layout.cp * ep), ep=ep)


def _between(layout: Layout, first: Rehearsal, second: Rehearsal, share: float) -> Rehearsal:
    """`share` of the first, and the rest of the second."""

    def mixed(one: Counter[str], other: Counter[str]) -> Counter[str]:
        return Counter({name: round(share * one[name] + (1 - share) * other[name]) for name in one | other})

    segments = tuple(
        Segment(a.name, mixed(a.start, b.start), mixed(a.peak, b.peak), mixed(a.end, b.end))
        for a, b in zip(first.segments, second.segments, strict=True)
    )
    return replace(first, layout=layout, segments=segments)
