"""How tokens are drawn. Light: needs no torch."""

from dataclasses import dataclass


@dataclass(frozen=True)
class SamplingConfig:
    """How tokens are drawn. A temperature of 0 takes the most probable one.

    `top_k` keeps that many most probable tokens, `top_p` the fewest that together reach this probability, and both any
    that tie with the last of them.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None

    def __post_init__(self) -> None:
        if self.temperature < 0:
            raise ValueError(f"temperature is {self.temperature}; it must not be negative (0 is greedy).")
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"top_k is {self.top_k}; it must be at least 1, or null to keep all tokens.")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ValueError(f"top_p is {self.top_p}; it must lie above 0 and up to 1, or be null.")
