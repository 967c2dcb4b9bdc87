"""From a rehearsal of a few blocks to a step of all of them."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from lightning_modules.model.configuration import DecoderConfig
from pipeline.planning.live_memory import Segment
from pipeline.planning.rehearsal import Rehearsal


@dataclass(frozen=True)
class Stretch:
    """One segment of the whole step.

    Attributes:
        phase: `forward`, `after`, `backward`, or what else a rehearsal calls its segments.
        block: `layers.60`; empty outside blocks.
        segment: the rehearsed segment that stands for it.
        extra: bytes of activations that are kept at the time, of blocks that were not rehearsed.
    """

    phase: str
    block: str
    segment: Segment
    extra: int

    @property
    def peak(self) -> Counter[str]:
        """Bytes alive at its fullest, by category."""
        return self.segment.peak + Counter(activations=self.extra)


def whole_step(config: DecoderConfig, rehearsal: Rehearsal) -> Iterator[Stretch]:
    """Every segment of a step of all blocks, in order.

    The first and the last block of a kind stand for themselves. Those between are like the first of their kind
    forwards, and like the last backwards, and keep as much.
    """
    layers = range(config.num_hidden_layers)
    for segment in rehearsal.segments:
        phase, _, block = segment.name.partition(" ")
        if not block.startswith("layers."):
            extra = _extra(config, rehearsal, len(layers), rehearsal.n_layers, phase)
            yield Stretch(phase, block, segment, extra)
            continue
        place = int(block.removeprefix("layers."))
        for layer in reversed(layers) if phase == "backward" else layers:
            if _place(config, rehearsal, layer, phase) == place:
                yield Stretch(phase, f"layers.{layer}", segment, _extra(config, rehearsal, layer, place, phase))


def kept_activations(config: DecoderConfig, rehearsal: Rehearsal) -> int:
    """Bytes of activations that wait for the backward pass, of all blocks."""
    extra = _extra(config, rehearsal, config.num_hidden_layers, rehearsal.n_layers, "backward")
    return rehearsal.segment("backward head").start["activations"] + extra


def _place(config: DecoderConfig, rehearsal: Rehearsal, layer: int, phase: str) -> int:
    """The rehearsed block that stands for `layer`."""
    first, n_blocks, n_rehearsed, offset = 0, config.first_k_dense_replace, rehearsal.n_dense, 0
    if not config.is_dense(layer):
        first, n_blocks = config.first_k_dense_replace, config.num_hidden_layers - config.first_k_dense_replace
        n_rehearsed, offset = rehearsal.n_mixtures, rehearsal.n_dense
    is_last = layer - first > 0 if phase == "backward" else layer - first == n_blocks - 1
    return offset + (n_rehearsed - 1 if is_last else 0)


def _extra(config: DecoderConfig, rehearsal: Rehearsal, layer: int, place: int, phase: str) -> int:
    """Bytes kept by the blocks before `layer`, beyond those kept by the rehearsed blocks before `place`."""
    direction = "backward" if phase == "backward" else "forward"
    n_dense = min(layer, config.first_k_dense_replace) - min(place, rehearsal.n_dense)
    n_mixtures = max(layer - config.first_k_dense_replace, 0) - max(place - rehearsal.n_dense, 0)
    # Where all blocks of a kind were rehearsed there is none to ask for.
    dense = n_dense * rehearsal.kept(0, direction) if n_dense else 0
    return dense + (n_mixtures * rehearsal.kept(rehearsal.n_dense, direction) if n_mixtures else 0)
