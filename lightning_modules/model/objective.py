"""What training minimises, checked once, where it is written down."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ObjectiveConfig:
    """What training minimises, and how it keeps experts balanced (arXiv 2412.19437, sections 2.1.2 and 2.2).

    Attributes:
        lm_weight: λ_LM, of the next-token loss.
        mtp_weight: λ, of the mean of the multi-token-prediction losses.
        bias_update_speed: γ of the auxiliary-loss-free balancing.
        sequence_balance_weight: α of the sequence-wise balance loss.
        mtp_weights: a λ for each depth of multi-token prediction, in place of `mtp_weight`.
        mtp_constant_fraction: share of the training after which every λ falls to `mtp_final_ratio` of itself. The
            paper goes from 0.3 to 0.1 after 10T of 14.8T tokens: 0.676 and 0.333.
        mtp_final_ratio: see there; 1 keeps λ.
        switch_balance_weight: of the auxiliary loss of the Switch Transformer, over whole micro-batches.
    """

    lm_weight: float
    mtp_weight: float
    bias_update_speed: float
    sequence_balance_weight: float
    mtp_weights: tuple[float, ...] | None = None
    mtp_constant_fraction: float = 1.0
    mtp_final_ratio: float = 1.0
    switch_balance_weight: float = 0.0

    def __post_init__(self) -> None:
        if self.mtp_weights is not None:
            object.__setattr__(self, "mtp_weights", tuple(self.mtp_weights))
        for name in (
            "lm_weight",
            "mtp_weight",
            "bias_update_speed",
            "sequence_balance_weight",
            "mtp_final_ratio",
            "switch_balance_weight",
        ):
            if getattr(self, name) < 0:
                raise ValueError(f"model.objective.{name} is {getattr(self, name)}; it must not be negative.")
        if any(weight < 0 for weight in self.mtp_weights or ()):
            raise ValueError(f"model.objective.mtp_weights is {list(self.mtp_weights or ())}; none must be negative.")
        if not 0 <= self.mtp_constant_fraction <= 1:
            raise ValueError(
                f"model.objective.mtp_constant_fraction is {self.mtp_constant_fraction}; it must lie between 0 and 1."
            )

    def check_depth(self, depth: int) -> None:
        """Raise a ValueError unless there is a weight for each of `depth` prediction modules."""
        if self.mtp_weights is not None and len(self.mtp_weights) != depth:
            raise ValueError(
                f"model.objective.mtp_weights holds {len(self.mtp_weights)} weights, but "
                f"model.num_nextn_predict_layers is {depth}; give one for each, or null to use mtp_weight for all."
            )

    def mtp_weight_at(self, depth: int, progress: float) -> float:
        """λ of prediction depth `depth` (from 1), once the share `progress` of training is done."""
        weight = self.mtp_weight if self.mtp_weights is None else self.mtp_weights[depth - 1]
        return weight if progress < self.mtp_constant_fraction else weight * self.mtp_final_ratio

    def mtp_shares(self, n_depths: int, progress: float) -> list[float]:
        """λ_k / D of all D prediction depths: what each one's loss counts."""
        return [self.mtp_weight_at(depth, progress) / n_depths for depth in range(1, n_depths + 1)]
