"""What a decoder is made of, checked once, where it is written down."""

from dataclasses import dataclass


@dataclass(frozen=True)
class DecoderConfig:
    """The architecture of a decoder; field names are those of the published DeepSeek-V3 configuration.

    Raises:
        ValueError: when the numbers cannot describe a decoder; the message names the key and the remedy.
    """

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    q_lora_rank: int | None
    kv_lora_rank: int
    qk_nope_head_dim: int
    qk_rope_head_dim: int
    v_head_dim: int
    intermediate_size: int
    moe_intermediate_size: int
    first_k_dense_replace: int
    n_routed_experts: int
    n_shared_experts: int
    num_experts_per_tok: int
    n_group: int
    topk_group: int
    scoring_func: str
    norm_topk_prob: bool
    routed_scaling_factor: float
    rope_theta: float
    rms_norm_eps: float
    max_position_embeddings: int
    tie_word_embeddings: bool
    initializer_range: float
    num_nextn_predict_layers: int

    def __post_init__(self) -> None:
        self._check_sizes()
        self._check_routing()

    @property
    def qk_head_dim(self) -> int:
        """Width of one attention head's query and key: the part without position, then the rotary part."""
        return self.qk_nope_head_dim + self.qk_rope_head_dim

    def is_dense(self, layer: int) -> bool:
        """Whether `layer` has a dense feed-forward network in place of experts."""
        return layer < self.first_k_dense_replace

    def _check_sizes(self) -> None:
        for name in (
            "vocab_size",
            "hidden_size",
            "num_hidden_layers",
            "num_attention_heads",
            "kv_lora_rank",
            "v_head_dim",
            "intermediate_size",
            "moe_intermediate_size",
            "max_position_embeddings",
        ):
            if getattr(self, name) < 1:
                raise ValueError(f"model.{name} is {getattr(self, name)}; it must be at least 1.")
        for name in ("hidden_size", "moe_intermediate_size"):
            if getattr(self, name) % 8:
                raise ValueError(
                    f"model.{name} is {getattr(self, name)}; grouped matmul needs rows of whole 16 bytes: "
                    "make it a multiple of 8."
                )
        if self.q_lora_rank is not None and self.q_lora_rank < 1:
            raise ValueError(f"model.q_lora_rank is {self.q_lora_rank}; set a rank of at least 1, or null for none.")
        if self.qk_rope_head_dim < 2 or self.qk_rope_head_dim % 2:
            raise ValueError(
                f"model.qk_rope_head_dim is {self.qk_rope_head_dim}; rotary dimensions come in pairs: make it even."
            )
        if self.qk_nope_head_dim < 0:
            raise ValueError(f"model.qk_nope_head_dim is {self.qk_nope_head_dim}; it must not be negative.")
        if not 0 <= self.first_k_dense_replace <= self.num_hidden_layers:
            raise ValueError(
                f"model.first_k_dense_replace is {self.first_k_dense_replace}; "
                f"it must lie between 0 and num_hidden_layers ({self.num_hidden_layers})."
            )
        if self.num_nextn_predict_layers < 0 or self.n_shared_experts < 0:
            raise ValueError("model.num_nextn_predict_layers and model.n_shared_experts must not be negative.")
        if self.initializer_range <= 0 or self.rms_norm_eps <= 0 or self.rope_theta <= 0:
            raise ValueError("model.initializer_range, model.rms_norm_eps and model.rope_theta must be positive.")

    def _check_routing(self) -> None:
        if self.scoring_func != "sigmoid":
            raise ValueError(f"model.scoring_func is '{self.scoring_func}'; the router scores with 'sigmoid'.")
        if self.n_routed_experts < 1 or self.n_group < 1 or self.n_routed_experts % self.n_group:
            raise ValueError(
                f"model.n_routed_experts ({self.n_routed_experts}) does not divide into "
                f"model.n_group ({self.n_group}) groups; make it a multiple."
            )
        if not 1 <= self.topk_group <= self.n_group:
            raise ValueError(
                f"model.topk_group is {self.topk_group}; it must lie between 1 and n_group ({self.n_group})."
            )
        experts_kept = self.topk_group * self.n_routed_experts // self.n_group
        if not 1 <= self.num_experts_per_tok <= experts_kept:
            raise ValueError(
                f"model.num_experts_per_tok is {self.num_experts_per_tok}, but the {self.topk_group} kept groups hold "
                f"{experts_kept} experts; lower it or raise model.topk_group."
            )
        if self.routed_scaling_factor <= 0:
            raise ValueError(f"model.routed_scaling_factor is {self.routed_scaling_factor}; it must be positive.")


@dataclass(frozen=True)
class ObjectiveConfig:
    """What training minimises, and how it keeps experts balanced (arXiv 2412.19437, sections 2.1.2 and 2.2).

    `lm_weight` and `mtp_weight` weigh the next-token loss and the mean of the multi-token-prediction losses;
    `bias_update_speed` is the γ of the auxiliary-loss-free balancing; `sequence_balance_weight` the α of the
    sequence-wise balance loss.
    """

    lm_weight: float
    mtp_weight: float
    bias_update_speed: float
    sequence_balance_weight: float

    def __post_init__(self) -> None:
        for name in ("lm_weight", "mtp_weight", "bias_update_speed", "sequence_balance_weight"):
            if getattr(self, name) < 0:
                raise ValueError(f"model.objective.{name} is {getattr(self, name)}; it must not be negative.")
