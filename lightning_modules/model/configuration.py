"""What a decoder is made of, checked once, where it is written down."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

from lightning_modules.model.yarn import YarnConfig

SCORING_FUNCTIONS = ("sigmoid", "softmax")
SEGMENT_ROUTINGS = ("independent", "hierarchical")


@dataclass(frozen=True)
class DecoderConfig:
    """The architecture of a decoder; field names are those of the published DeepSeek-V3 configuration.

    What DeepSeek-V3 does not have comes last, and is absent by default. An expert can be split into
    `num_expert_segments` finer ones, all of the same width or of `expert_segment_sizes`. With `independent` routing
    every segment is an expert of its own, and as many times more of them are chosen. With `hierarchical` routing
    experts are chosen first, and then the best `num_segments_per_expert` segments of each (null: all).

    Raises:
        ValueError: when the numbers cannot describe a decoder; the message names the key and the remedy.
    """

    # Far beyond every published model: a file that asks for more is damaged, and reading on would take for ever.
    LARGEST: ClassVar[Mapping[str, float]] = {
        "vocab_size": 2**28, "hidden_size": 2**20, "num_hidden_layers": 10_000, "num_attention_heads": 2**16,
        "q_lora_rank": 2**20, "kv_lora_rank": 2**20, "qk_nope_head_dim": 2**16, "qk_rope_head_dim": 2**16,
        "v_head_dim": 2**16, "intermediate_size": 2**24, "moe_intermediate_size": 2**24, "n_routed_experts": 2**20,
        "n_shared_experts": 2**12, "n_group": 2**20, "max_position_embeddings": 2**40, "num_nextn_predict_layers": 64,
        "num_expert_segments": 2**12,
    }  # fmt: skip

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
    rope_interleave: bool = True
    rope_scaling: YarnConfig | None = None
    num_expert_segments: int = 1
    expert_segment_sizes: tuple[int, ...] | None = None
    expert_segment_routing: str = "independent"
    num_segments_per_expert: int | None = None

    def __post_init__(self) -> None:
        # Checkpoints and files hold plain values.
        if isinstance(self.rope_scaling, Mapping):
            object.__setattr__(self, "rope_scaling", YarnConfig(**self.rope_scaling))
        if self.expert_segment_sizes is not None:
            object.__setattr__(self, "expert_segment_sizes", tuple(self.expert_segment_sizes))
        self._check_sizes()
        self._check_positions()
        self._check_routing()
        self._check_segments()

    @property
    def qk_head_dim(self) -> int:
        """Width of one attention head's query and key: the part without position, then the rotary part."""
        return self.qk_nope_head_dim + self.qk_rope_head_dim

    @property
    def rotary_dim(self) -> int:
        """Dimensions of a head that positions rotate: the decoupled rotary part or, where there is none, all of it."""
        return self.qk_rope_head_dim or self.qk_head_dim

    @property
    def segment_sizes(self) -> tuple[int, ...]:
        """Intermediate width of each segment of an expert."""
        if self.expert_segment_sizes is not None:
            return self.expert_segment_sizes
        return (self.moe_intermediate_size // self.num_expert_segments,) * self.num_expert_segments

    @property
    def n_routed_segments(self) -> int:
        """What a router chooses from: the segments of all experts, which are the experts themselves when unsplit."""
        return self.n_routed_experts * self.num_expert_segments

    @property
    def num_segments_per_tok(self) -> int:
        """Segments that a token goes to."""
        if self.routes_hierarchically and self.num_segments_per_expert is not None:
            return self.num_experts_per_tok * self.num_segments_per_expert
        return self.num_experts_per_tok * self.num_expert_segments

    @property
    def routes_hierarchically(self) -> bool:
        """Whether a token chooses experts first, and segments within them."""
        return self.num_expert_segments > 1 and self.expert_segment_routing == "hierarchical"

    def with_segments_as_experts(self) -> "DecoderConfig":
        """The same decoder, told without segments: independent segments of one width are experts of that width.

        Raises:
            ValueError: when segments have different widths, or are routed within their experts.
        """
        if self.num_expert_segments == 1:
            return self
        if self.routes_hierarchically:
            raise ValueError(
                "model.expert_segment_routing is 'hierarchical', which the published layout cannot express; "
                "train with 'independent' to export."
            )
        if len(set(self.segment_sizes)) > 1:
            raise ValueError(
                f"model.expert_segment_sizes is {list(self.segment_sizes)}, but all experts of the published layout "
                "have one width; train with null, for segments of equal size, to export."
            )
        return replace(
            self,
            moe_intermediate_size=self.segment_sizes[0],
            n_routed_experts=self.n_routed_segments,
            n_shared_experts=self.n_shared_experts * self.num_expert_segments,
            num_experts_per_tok=self.num_segments_per_tok,
            num_expert_segments=1,
            expert_segment_sizes=None,
        )

    def without_groups_of_one(self) -> "DecoderConfig":
        """The same decoder, told without groups of a single expert, which choose nothing that experts do not.

        A group's score is the sum of its two best: of a single expert, its own. To keep the best groups, and to choose
        the best experts among them, is then to choose the best experts of all. The published code cannot be told so: it
        asks every group for its two best.
        """
        if self.n_group == 1 or self.n_group != self.n_routed_segments:
            return self
        return replace(self, n_group=1, topk_group=1)

    def check_router_learns(self) -> None:
        """Raise a ValueError where no loss of a prediction can teach the router: such weights can be used, not trained.

        One expert a token with normalised gates always counts 1, whatever its score.
        """
        n_chosen = self.num_experts_per_tok if self.routes_hierarchically else self.num_segments_per_tok
        has_experts = self.first_k_dense_replace < self.num_hidden_layers or self.num_nextn_predict_layers > 0
        if has_experts and n_chosen == 1 and self.n_routed_segments > 1 and self.norm_topk_prob:
            raise ValueError(
                "model.num_experts_per_tok is 1 with model.norm_topk_prob true: every gate is then 1, and the router "
                "gets no gradient. Choose at least 2 experts, or set model.norm_topk_prob=false."
            )

    def is_dense(self, layer: int) -> bool:
        """Whether `layer` has a dense feed-forward network in place of experts."""
        return layer < self.first_k_dense_replace

    def _check_sizes(self) -> None:
        for name, largest in self.LARGEST.items():
            if (getattr(self, name) or 0) > largest:
                raise ValueError(f"model.{name} is {getattr(self, name)}; it may be at most {largest:,}.")
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
        if min(self.qk_nope_head_dim, self.qk_rope_head_dim) < 0 or self.qk_head_dim == 0:
            raise ValueError(
                f"model.qk_nope_head_dim is {self.qk_nope_head_dim} and model.qk_rope_head_dim "
                f"{self.qk_rope_head_dim}; neither must be negative, and one must be positive."
            )
        if self.rotary_dim % 2:
            name = "qk_rope_head_dim" if self.qk_rope_head_dim else "qk_nope_head_dim"
            raise ValueError(f"model.{name} is {self.rotary_dim}; rotary dimensions come in pairs: make it even.")
        if not 0 <= self.first_k_dense_replace <= self.num_hidden_layers:
            raise ValueError(
                f"model.first_k_dense_replace is {self.first_k_dense_replace}; "
                f"it must lie between 0 and num_hidden_layers ({self.num_hidden_layers})."
            )
        if self.num_nextn_predict_layers < 0 or self.n_shared_experts < 0:
            raise ValueError("model.num_nextn_predict_layers and model.n_shared_experts must not be negative.")
        if self.initializer_range <= 0 or self.rms_norm_eps <= 0 or self.rope_theta <= 0:
            raise ValueError("model.initializer_range, model.rms_norm_eps and model.rope_theta must be positive.")

    def _check_positions(self) -> None:
        if self.rope_scaling is None:
            return
        longest = self.rope_scaling.factor * self.rope_scaling.original_max_position_embeddings
        if self.max_position_embeddings > longest:
            raise ValueError(
                f"model.max_position_embeddings is {self.max_position_embeddings}, but model.rope_scaling reaches "
                f"{longest:.0f} tokens; lower it or raise rope_scaling.factor."
            )
        if self.rope_theta <= 1:
            raise ValueError(f"model.rope_theta is {self.rope_theta}; with model.rope_scaling it must be above 1.")

    def _check_routing(self) -> None:
        if self.scoring_func not in SCORING_FUNCTIONS:
            raise ValueError(f"model.scoring_func is '{self.scoring_func}'; choose {' or '.join(SCORING_FUNCTIONS)}.")
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

    def _check_segments(self) -> None:
        n_segments, width = self.num_expert_segments, self.moe_intermediate_size
        if n_segments < 1:
            raise ValueError(
                f"model.num_expert_segments is {n_segments}; it must be at least 1 (1: experts stay whole)."
            )
        if self.expert_segment_routing not in SEGMENT_ROUTINGS:
            raise ValueError(
                f"model.expert_segment_routing is '{self.expert_segment_routing}'; "
                f"choose {' or '.join(SEGMENT_ROUTINGS)}."
            )
        if self.expert_segment_sizes is None and width % n_segments:
            raise ValueError(
                f"model.moe_intermediate_size ({width}) does not divide into model.num_expert_segments ({n_segments}); "
                "make it a multiple, or name model.expert_segment_sizes."
            )
        sizes = self.segment_sizes
        if len(sizes) != n_segments or sum(sizes) != width:
            raise ValueError(
                f"model.expert_segment_sizes is {list(sizes)}; it takes as many sizes as model.num_expert_segments "
                f"({n_segments}), which sum to model.moe_intermediate_size ({width})."
            )
        if any(size < 1 or size % 8 for size in sizes):
            raise ValueError(
                f"model.num_expert_segments makes segments of the sizes {list(sizes)}; grouped matmul needs rows of "
                "whole 16 bytes: make each a positive multiple of 8."
            )
        self._check_chosen_segments()

    def _check_chosen_segments(self) -> None:
        n_chosen = self.num_segments_per_expert
        if n_chosen is None:
            return
        if not self.routes_hierarchically:
            raise ValueError(
                f"model.num_segments_per_expert is {n_chosen}, but only hierarchical routing chooses segments within "
                "experts; set it to null, or model.expert_segment_routing to hierarchical."
            )
        if not 1 <= n_chosen <= self.num_expert_segments:
            raise ValueError(
                f"model.num_segments_per_expert is {n_chosen}; it must lie between 1 and model.num_expert_segments "
                f"({self.num_expert_segments})."
            )
