"""The token dispatcher on top of DeepEP: differentiable, and its gates applied where the experts are.

Suffixes: N tokens here, T tokens received, K chosen experts a token, L experts of this rank, R rows of their choices,
D hidden.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from lightning_modules.model.dispatch import Choice, Dispatched
from lightning_modules.parallel.all_to_all import with_any_number_of_rows
from lightning_modules.parallel.deep_ep_transports import Payload, Transport

QUANTISATION_BLOCK = 128

# BF16 [N, D] to E4M3 [N, D] and FP32 scales [N, D / 128], by which the values have to be multiplied again.
Quantiser = Callable[[Tensor], tuple[Tensor, Tensor]]


class WayBack(NamedTuple):
    """How rows came here.

    Attributes:
        tokens: [R] the received token that each row is a copy of.
        n_tokens: T.
        handle: the transport's own.
    """

    tokens: Tensor
    n_tokens: int
    handle: Any


class DeepEPDispatcher:
    """Experts are spread evenly over ranks, and DeepEP moves their tokens.

    A token travels once to each rank that holds any of its experts, where it is copied for each of them; their weighted
    outputs are summed there, in FP32, and one BF16 row a rank travels back. Rows are BF16 on all ways; with
    `quantise` they are FP8 on the way to the experts, and gradients do not see the rounding.

    Args:
        transport: DeepEP's API in use.
        n_local_experts: L.
        quantise: what tokens are rounded to FP8 by on their way to the experts; None leaves them BF16, and so does a
            width that is not a multiple of 128.
    """

    def __init__(self, transport: Transport, n_local_experts: int, quantise: Quantiser | None = None) -> None:
        self.transport = transport
        self.n_local_experts = n_local_experts
        self.quantise = quantise

    def plan(self, tokens: Tensor, gates: Tensor, indices: Tensor) -> Choice:
        """Nothing has to be known before: DeepEP tells the ranks their numbers along with the tokens."""
        return Choice(tokens, gates, indices)

    @torch.compiler.disable
    def dispatch(self, plan: Choice) -> Dispatched:
        """Send the tokens to their experts, with their gates.

        Raises:
            TypeError: the tokens are not BF16.
        """
        tokens, gates, indices = plan
        if tokens.dtype != torch.bfloat16:
            raise TypeError(
                f"DeepEP moves BF16 tokens, not {tokens.dtype}; train with precision=bf16 or an fp8 recipe, "
                "or set strategy.dispatch=all_to_all."
            )
        quantise = None if tokens.shape[1] % QUANTISATION_BLOCK else self.quantise
        received, local_indices, local_gates, n_choices, handle = _Dispatch.apply(
            tokens, gates.float(), indices, self.transport, quantise
        )
        # Choices of other ranks' experts count as an expert beyond the last, and are cut off.
        experts = local_indices.flatten().to(torch.int64)
        experts = torch.where(experts < 0, self.n_local_experts, experts)
        order = experts.argsort(stable=True)[:n_choices]
        counts = torch.zeros(self.n_local_experts + 1, dtype=torch.int64, device=experts.device)
        counts = counts.scatter_add_(0, experts, torch.ones_like(experts))[:-1]
        sources = order // local_indices.shape[1]
        row_gates = local_gates.flatten().index_select(0, order)
        way_back = WayBack(sources, received.shape[0], handle)
        return with_any_number_of_rows(Dispatched(received.index_select(0, sources), row_gates, counts, way_back))

    @torch.compiler.disable
    def combine(self, rows: Tensor, way_back: WayBack) -> Tensor:
        """Sum the experts' rows [R, D], and return the tokens [N, D] they came from."""
        summed = torch.zeros(way_back.n_tokens, rows.shape[1], device=rows.device)
        summed = summed.index_add(0, way_back.tokens, rows.float())
        combined = _Combine.apply(summed.to(torch.bfloat16), self.transport, way_back.handle)
        assert isinstance(combined, Tensor)
        return combined.to(rows.dtype)


class _Dispatch(torch.autograd.Function):
    """Tokens and gates to their experts' ranks; the way back of their gradients is a combine."""

    @staticmethod
    def forward(
        ctx: Any, tokens: Tensor, gates: Tensor, indices: Tensor, transport: Transport, quantise: Quantiser | None
    ) -> tuple[Tensor, Tensor, Tensor, int, Any]:
        payload: Payload = tokens.contiguous()
        if quantise is not None:
            values, scales = quantise(tokens)
            payload = (values.contiguous(), scales.contiguous())
        rows, local_indices, local_gates, n_choices, handle = transport.dispatch(payload, indices, gates)
        if isinstance(rows, tuple):
            rows = _dequantise(*rows)
        ctx.transport, ctx.handle = transport, handle
        ctx.mark_non_differentiable(local_indices)
        return rows, local_indices, local_gates, n_choices, handle

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor, Tensor | None, None, None, None]:
        rows, _, gates, _, _ = gradients
        tokens, token_gates = ctx.transport.combine(rows.to(torch.bfloat16), ctx.handle, gates)
        return tokens, token_gates, None, None, None


class _Combine(torch.autograd.Function):
    """Sums of rows back to their tokens; the way back of their gradients is the earlier dispatch, repeated."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, transport: Transport, handle: Any) -> Tensor:
        ctx.transport, ctx.handle = transport, handle
        return transport.combine(rows, handle)[0]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (tokens,) = gradients
        return ctx.transport.repeat(tokens.to(torch.bfloat16), ctx.handle), None, None


def _dequantise(values: Tensor, scales: Tensor) -> Tensor:
    """The BF16 rows [T, D] that E4M3 values [T, D] with scales [T, D / 128] stand for.

    The recipes quantise rows once more, in the same blocks, and find the same E4M3 values again: rounding to BF16 moves
    a value by at most 2^-9 of itself, and E4M3's values lie 2^-4 apart.
    """
    blocks = values.float().unflatten(-1, (-1, QUANTISATION_BLOCK)) * scales.unsqueeze(-1)
    return blocks.flatten(-2).to(torch.bfloat16)
