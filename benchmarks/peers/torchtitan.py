"""deepseek_v3 of torchtitan 0.2.2, compiled as it compiles it: on one GPU, or on several by its own parallelisation.

Packed documents take its FlexAttention with block masks; whole rows torch's own attention, which is faster for them.
"""

import os
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torchtitan.config import JobConfig
from torchtitan.distributed import ParallelDims
from torchtitan.distributed.utils import clip_grad_norm_
from torchtitan.models.attention import create_attention_mask
from torchtitan.models.deepseek_v3.infra.parallelize import parallelize_deepseekv3
from torchtitan.models.deepseek_v3.model.args import DeepSeekV3ModelArgs
from torchtitan.models.deepseek_v3.model.model import DeepSeekV3Model
from torchtitan.models.llama4.infra.parallelize import apply_compile
from torchtitan.models.moe import MoEArgs

from benchmarks.peers.peer import Peer
from benchmarks.training.workload import Workload
from lightning_modules.batch import Batch
from lightning_modules.model.initialisation import local_part

# Ours by theirs, within a block.
OF_BLOCKS = {
    "attention_norm.weight": "input_layernorm.weight",
    "ffn_norm.weight": "post_attention_layernorm.weight",
    "attention.wq.weight": "self_attn.q_proj.weight",
    "attention.wq_a.weight": "self_attn.q_a_proj.weight",
    "attention.q_norm.weight": "self_attn.q_a_layernorm.weight",
    "attention.wq_b.weight": "self_attn.q_b_proj.weight",
    "attention.wkv_a.weight": "self_attn.kv_a_proj_with_mqa.weight",
    "attention.kv_norm.weight": "self_attn.kv_a_layernorm.weight",
    "attention.wkv_b.weight": "self_attn.kv_b_proj.weight",
    "attention.wo.weight": "self_attn.o_proj.weight",
    "feed_forward.w1.weight": "mlp.gate_proj.weight",
    "feed_forward.w2.weight": "mlp.down_proj.weight",
    "feed_forward.w3.weight": "mlp.up_proj.weight",
    "moe.router.gate.weight": "mlp.gate.weight",
    "moe.shared_experts.w1.weight": "mlp.shared_experts.gate_proj.weight",
    "moe.shared_experts.w2.weight": "mlp.shared_experts.down_proj.weight",
    "moe.shared_experts.w3.weight": "mlp.shared_experts.up_proj.weight",
    "moe.experts.w2": "mlp.experts.down_proj",
}
OUTSIDE = {
    "tok_embeddings.weight": "embed_tokens.weight",
    "norm.weight": "norm.weight",
    "output.weight": "lm_head.weight",
}


class TorchtitanPeer(Peer):
    """Its model, with BF16 by autocast on one GPU and by FSDP on several, as its trainer does it."""

    NAME = "torchtitan"

    def __init__(self, workload: Workload, weights: Mapping[str, Tensor], device: torch.device) -> None:
        self.world_size = int(os.environ.get("WORLD_SIZE", 1))
        self.ep = 1 if workload.strategy is None else workload.strategy.ep
        super().__init__(workload, weights, device)
        self.compiled_loss = torch.compile(super().loss) if workload.trainer.compile else super().loss

    def build(self, weights: Mapping[str, Tensor]) -> nn.Module:
        """The model, sharded and compiled."""
        with torch.device("meta"):
            model = DeepSeekV3Model(_arguments(self.workload))
        if self.world_size > 1:
            self._parallelise(model)
        model.to_empty(device=self.device)
        with torch.no_grad():
            model.init_weights(buffer_device=self.device)
            for name, parameter in model.named_parameters():
                local, part = local_part(parameter)
                local.copy_(own_weight(name.replace("_orig_mod.", ""), weights)[part])
        if self.world_size == 1 and self.workload.trainer.compile:
            apply_compile(model, SimpleNamespace(backend="inductor", enable=True, components=["model"]), False)
        return model

    def build_optimizer(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        """AdamW, fused over the parameters of each mesh."""
        return super().build_optimizer([part for group in groups for part in _by_mesh(group)])

    def logits(self, tokens: Tensor, batch: Batch) -> Tensor:
        """Of its model."""
        masks = None
        if self.workload.document_length is not None:
            masks = _block_mask(batch.document_ids[:, : tokens.shape[1]])
        by_autocast = self.workload.precision != "fp32" and self.world_size == 1
        with torch.autocast(self.device.type, torch.bfloat16, enabled=by_autocast):
            return self.model(tokens, attention_masks=masks)

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Compiled, as its trainer does."""
        return self.compiled_loss(logits, targets)

    def clip(self, max_norm: float) -> None:
        """By its own function, which knows of experts on other ranks."""
        clip_grad_norm_(list(self.model.parameters()), max_norm, foreach=True, ep_enabled=self.ep > 1)

    def _parallelise(self, model: nn.Module) -> None:
        job = JobConfig()
        job.training.seq_len = self.workload.trainer.sequence_length
        job.compile.enable = self.workload.trainer.compile
        job.compile.components = ["model", "loss"]
        job.activation_checkpoint.mode = "none"
        job.parallelism.expert_parallel_degree = self.ep
        dims = ParallelDims(
            dp_replicate=1, dp_shard=-1, cp=1, tp=1, pp=1, ep=self.ep, etp=1, world_size=self.world_size
        )
        dims.build_mesh()
        parallelize_deepseekv3(model, dims, job)


def own_weight(name: str, weights: Mapping[str, Tensor]) -> Tensor:
    """Our weight, or the half of one, that torchtitan calls `name`."""
    if name in OUTSIDE:
        return weights[OUTSIDE[name]]
    _, layer, inner = name.split(".", 2)
    if inner in ("moe.experts.w1", "moe.experts.w3"):
        gate, up = weights[f"layers.{layer}.mlp.experts.gate_up_proj"].chunk(2, dim=1)
        return gate if inner.endswith("w1") else up
    return weights[f"layers.{layer}.{OF_BLOCKS[inner]}"]


def _arguments(workload: Workload) -> DeepSeekV3ModelArgs:
    """Its names of our sizes.

    Raises:
        ValueError: it knows no such architecture.
    """
    decoder, length = workload.decoder, workload.trainer.sequence_length
    if decoder.rope_scaling is not None or decoder.tie_word_embeddings or decoder.num_expert_segments > 1:
        raise ValueError("torchtitan is compared without rope_scaling, tied embeddings and segments of experts.")
    experts = MoEArgs(
        num_experts=decoder.n_routed_experts,
        num_shared_experts=decoder.n_shared_experts,
        top_k=decoder.num_experts_per_tok,
        num_expert_groups=decoder.n_group if decoder.n_group > 1 else None,
        num_limited_groups=decoder.topk_group if decoder.n_group > 1 else None,
        score_func=decoder.scoring_func,
        route_norm=decoder.norm_topk_prob,
        route_scale=decoder.routed_scaling_factor,
        score_before_experts=False,
        use_grouped_mm=torch.cuda.is_available(),
    )
    arguments = DeepSeekV3ModelArgs(
        max_seq_len=length,
        original_seq_len=length,  # beyond it, it would scale positions
        vocab_size=decoder.vocab_size,
        dim=decoder.hidden_size,
        inter_dim=decoder.intermediate_size,
        moe_inter_dim=decoder.moe_intermediate_size,
        n_layers=decoder.num_hidden_layers,
        n_dense_layers=decoder.first_k_dense_replace,
        n_heads=decoder.num_attention_heads,
        norm_eps=decoder.rms_norm_eps,
        q_lora_rank=decoder.q_lora_rank or 0,
        kv_lora_rank=decoder.kv_lora_rank,
        qk_nope_head_dim=decoder.qk_nope_head_dim,
        qk_rope_head_dim=decoder.qk_rope_head_dim,
        v_head_dim=decoder.v_head_dim,
        rope_theta=decoder.rope_theta,
        attn_type="sdpa" if workload.document_length is None else "flex",
        attn_mask_type="causal" if workload.document_length is None else "block_causal",
        moe_args=experts,
    )
    arguments.moe_impl = "standard"
    return arguments


def _block_mask(document_ids: Tensor) -> Any:
    """Who sees whom, for FlexAttention: earlier tokens of the same document; from `document_ids` [B, T]."""

    def sees(row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (query >= key) & (document_ids[row, query] == document_ids[row, key])

    n_rows, length = document_ids.shape
    return create_attention_mask(sees, n_rows, None, length, length)


def _by_mesh(group: dict[str, Any]) -> list[dict[str, Any]]:
    """The group apart by its parameters' meshes, which no fused step may mix."""
    meshes: dict[Any, list[nn.Parameter]] = {}
    for parameter in group["params"]:
        meshes.setdefault(parameter.device_mesh if isinstance(parameter, DTensor) else None, []).append(parameter)
    return [group | {"params": parameters} for parameters in meshes.values()]
