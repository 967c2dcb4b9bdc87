"""Recomputed activations: less to keep, and nothing else changes."""

import copy
from collections import Counter
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from lightning_modules.model.recompute_kinds import RECOMPUTE_KINDS
from tests.lightning_modules.model.kept_bytes import kept_bytes

aten = torch.ops.aten


class CountedOperations(TorchDispatchMode):
    """Counts the operations that are really computed."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[Any] = Counter()

    def __torch_dispatch__(self, operation: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        self.counts[operation] += 1
        return operation(*args, **(kwargs or {}))


@pytest.mark.parametrize("kind", RECOMPUTE_KINDS[1:])
@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize(
    "changes", [{}, {"q_lora_rank": None, "num_expert_segments": 2, "num_nextn_predict_layers": 2}]
)
def test_gradients_are_bit_equal_and_no_token_counts_twice(
    build_decoder, changes: dict, autocast: bool, kind: str
) -> None:
    decoder = build_decoder(**changes)
    lean = copy.deepcopy(decoder)
    lean.recompute = kind
    tokens = torch.randint(0, 40, (2, 30), generator=torch.Generator().manual_seed(0))
    document_ids = (torch.arange(30 - len(decoder.mtp)) // 11).expand(2, -1)
    outputs = []
    for model in (decoder, lean):
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            output = model(tokens, document_ids)
        loss = sum(logits.float().square().mean() for logits in (output.logits, *output.ahead_logits))
        loss.backward()
        outputs.append(output)
    assert torch.equal(outputs[0].logits, outputs[1].logits)
    for plain, recomputed in zip(outputs[0].routings, outputs[1].routings, strict=True):
        assert torch.equal(plain.load(), recomputed.load())
        assert recomputed.load().sum() == document_ids.numel() * decoder.config.num_segments_per_tok
    for (name, parameter), other in zip(decoder.named_parameters(), lean.parameters(), strict=True):
        assert parameter.grad is not None
        assert torch.equal(parameter.grad, other.grad), name


@pytest.mark.parametrize(("kind", "share"), [("activations", 0.6), ("blocks", 0.2)])
def test_fewer_activations_are_kept(build_decoder, kind: str, share: float) -> None:
    # Heads wide against the latent, as DeepSeek-V3's: there the up-projections weigh most.
    decoder = build_decoder(qk_nope_head_dim=64, v_head_dim=64, num_attention_heads=4, moe_intermediate_size=64)
    lean = copy.deepcopy(decoder)
    lean.recompute = kind
    tokens = torch.randint(0, 40, (4, 129))
    lean(tokens)  # what is allocated once
    (plain, _), (recomputed, _) = kept_bytes(decoder, tokens), kept_bytes(lean, tokens)
    assert recomputed < share * plain


def test_only_cheap_operations_run_again(build_decoder) -> None:
    decoder = build_decoder(num_nextn_predict_layers=0)
    lean = copy.deepcopy(decoder)
    lean.recompute = "activations"
    counts = []
    for model in (decoder, lean):
        with CountedOperations() as counted:
            model(torch.ones(1, 16, dtype=torch.long)).logits.sum().backward()
        counts.append(counted.counts)
    extra = counts[1] - counts[0]
    n_layers = decoder.config.num_hidden_layers
    assert extra[aten.mm.default] == 2 * n_layers  # q_b_proj and kv_b_proj
    assert extra[aten._grouped_mm.default] == extra[aten.topk.default] == 0
    assert extra[aten._scaled_dot_product_flash_attention_for_cpu.default] == 0
    # The SwiGLU of the dense layer, and of no experts.
    assert extra[aten.silu.default] == 1
