"""How a decoder that has learned short contexts is told longer ones."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class YarnConfig:
    """Longer contexts by YaRN (arXiv 2309.00071), as DeepSeek-V3 does it (arXiv 2412.19437, section 4.3).

    DeepSeek-V3 extends in two phases, from 4K to 32K and from there to 128K tokens. Both have these same values; they
    differ in the length of the sequences they train on.

    Attributes:
        factor: s, how many times longer the context becomes; the paper takes 40.
        original_max_position_embeddings: tokens of the context before.
        beta_fast: frequencies that turn more often than this over the original context stay (β, 32).
        beta_slow: those that turn less often are divided by `factor` (α, 1); in between lies a ramp.
        mscale: scales the rotary cosines and sines, in its ratio to `mscale_all_dim`; 0: not at all.
        mscale_all_dim: scales attention: its square root by 0.1 · mscale_all_dim · ln(factor) + 1; 0: not at all.
        attention_factor: scales the rotary cosines and sines, in place of that ratio; null: the ratio does.
        truncate: whether the ramp begins and ends at whole pairs, as DeepSeek-V3's does.
    """

    factor: float
    original_max_position_embeddings: int
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    mscale: float = 1.0
    mscale_all_dim: float = 1.0
    attention_factor: float | None = None
    truncate: bool = True

    def __post_init__(self) -> None:
        if self.factor < 1:
            raise ValueError(f"model.rope_scaling.factor is {self.factor}; it must be at least 1.")
        if self.original_max_position_embeddings < 1:
            raise ValueError(
                f"model.rope_scaling.original_max_position_embeddings is {self.original_max_position_embeddings}; "
                "set it to the context that the model was first trained with."
            )
        if not 0 < self.beta_slow <= self.beta_fast:
            raise ValueError(
                f"model.rope_scaling.beta_slow is {self.beta_slow} and beta_fast {self.beta_fast}; "
                "both must be positive, and beta_slow not the larger."
            )
        if self.mscale < 0 or self.mscale_all_dim < 0:
            raise ValueError(
                "model.rope_scaling.mscale and mscale_all_dim must not be negative; DeepSeek-V3 has 1 for both."
            )
        if self.attention_factor is not None and self.attention_factor <= 0:
            raise ValueError(
                f"model.rope_scaling.attention_factor is {self.attention_factor}; it must be positive, or null."
            )

    @property
    def rotary_scale(self) -> float:
        """What the rotary cosines and sines are multiplied by."""
        if self.attention_factor is not None:
            return self.attention_factor
        return self._magnitude(self.mscale) / self._magnitude(self.mscale_all_dim)

    @property
    def attention_magnitude(self) -> float:
        """The square root of what attention's logits are multiplied by, beside the head's width to the power -1/2."""
        return self._magnitude(self.mscale_all_dim)

    def _magnitude(self, mscale: float) -> float:
        """The square root of YaRN's attention temperature: 0.1 · mscale · ln(factor) + 1."""
        return 0.1 * mscale * math.log(self.factor) + 1
