"""What DeepEP's two APIs do, under one interface: tokens to the ranks of their experts, and sums of rows back.

DeepEP sends a token once to every rank that holds any of its experts, however many of them live there, and sums what
comes back; it weighs nothing itself. It moves BF16 rows, and FP8 ones with a scale for every 128 columns.

Suffixes: N tokens here, T tokens received, K chosen experts a token, D hidden.
"""

from types import ModuleType
from typing import Any, NamedTuple, Protocol

import torch
import torch.distributed as dist
from torch import Tensor

# Rows as they travel: BF16 [N, D], or E4M3 [N, D] and FP32 scales [N, D / 128].
Payload = Tensor | tuple[Tensor, Tensor]


class Received(NamedTuple):
    """What a rank received.

    Attributes:
        rows: [T, D] one row for every token of which any expert lives here, as it was sent.
        indices: [T, K] the token's experts, counted from the first of this rank; -1 for one that lives elsewhere.
        gates: [T, K] FP32; meaningless where `indices` is -1.
        n_choices: how many entries of `indices` are not -1.
        handle: how the tokens came, for the way back.
    """

    rows: Payload
    indices: Tensor
    gates: Tensor
    n_choices: int
    handle: Any


class Transport(Protocol):
    """An exchange between the ranks of one group; every method is called by all of them, in the same order."""

    def dispatch(self, rows: Payload, indices: Tensor, gates: Tensor) -> Received:
        """Send rows [N, D] to the ranks of their experts `indices` [N, K], with `gates` [N, K] in FP32."""
        ...

    def repeat(self, rows: Tensor, handle: Any) -> Tensor:
        """Send other rows [N, D] the way of an earlier dispatch; returns [T, D] in its order."""
        ...

    def combine(self, rows: Tensor, handle: Any, gates: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Send rows [T, D] back and sum those of a token, without weights: [N, D].

        `gates` [T, K] in FP32, zero for experts that live elsewhere, come back as [N, K].
        """
        ...


class ElasticTransport:
    """`deep_ep.ElasticBuffer`, the API of DeepEP 2.

    The buffer is made at the first dispatch, when sizes are known, and anew for more tokens. All ranks have to dispatch
    equally many tokens at a time, so that they do so together. Rows are received in an order that repeats: a dispatch
    that is recomputed in the backward pass has to fit the experts' outputs that were kept.
    """

    def __init__(self, module: ModuleType, group: dist.ProcessGroup, n_experts: int) -> None:
        self._module = module
        self._group = group
        self._n_experts = n_experts
        self._buffer: Any = None
        self._shape = (0, 0, 0)

    def dispatch(self, rows: Payload, indices: Tensor, gates: Tensor) -> Received:
        """See `Transport`."""
        values = rows[0] if isinstance(rows, tuple) else rows
        buffer = self._buffer_for(values.shape[0], values.shape[1], indices.shape[1])
        received, local_indices, local_gates, handle, _ = buffer.dispatch(
            rows,
            topk_idx=indices.to(self._module.topk_idx_t).contiguous(),
            topk_weights=gates.contiguous(),
            num_experts=self._n_experts,
            num_max_tokens_per_rank=self._shape[0],
            expert_alignment=1,
        )
        n_choices = sum(handle.num_recv_tokens_per_expert_list)
        return Received(received, local_indices, local_gates, n_choices, (buffer, handle))

    def repeat(self, rows: Tensor, handle: Any) -> Tensor:
        """See `Transport`."""
        buffer, ep_handle = handle
        # Left to itself, a repeated dispatch would look for the number of experts among its own arguments to choose the
        # number of multiprocessors, and between nodes the handle fits only the number it was made with.
        received, _, _, _, _ = buffer.dispatch(rows.contiguous(), handle=ep_handle, num_sms=ep_handle.num_sms)
        return received

    def combine(self, rows: Tensor, handle: Any, gates: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """See `Transport`."""
        buffer, ep_handle = handle
        gates = None if gates is None else gates.contiguous()
        combined, combined_gates, _ = buffer.combine(rows.contiguous(), handle=ep_handle, topk_weights=gates)
        return combined, combined_gates

    def _buffer_for(self, n_tokens: int, hidden_size: int, n_chosen: int) -> Any:
        if (hidden_size, n_chosen) != self._shape[1:] or n_tokens > self._shape[0]:
            self._shape = (n_tokens, hidden_size, n_chosen)
            # Sized for BF16 also where dispatch is FP8: gradients and sums travel in BF16 through the same buffer.
            self._buffer = self._module.ElasticBuffer(
                self._group,
                num_max_tokens_per_rank=n_tokens,
                hidden=hidden_size,
                num_topk=n_chosen,
                use_fp8_dispatch=False,
                deterministic=True,
            )
        return self._buffer


class LegacyTransport:
    """`deep_ep.Buffer` with its high-throughput kernels, the API of DeepEP 1."""

    def __init__(self, module: ModuleType, group: dist.ProcessGroup, n_experts: int) -> None:
        self._group = group
        self._n_experts = n_experts
        self._buffer_class = module.Buffer
        # Releases before the type became configurable know 64 bits alone.
        self._index_type = getattr(module, "topk_idx_t", torch.int64)
        n_ranks = group.size()
        self._configs = (
            self._buffer_class.get_dispatch_config(n_ranks),
            self._buffer_class.get_combine_config(n_ranks),
        )
        self._buffer: Any = None
        self._hidden_bytes = 0

    def dispatch(self, rows: Payload, indices: Tensor, gates: Tensor) -> Received:
        """See `Transport`."""
        values = rows[0] if isinstance(rows, tuple) else rows
        buffer = self._buffer_for(values.shape[1])
        indices = indices.to(self._index_type).contiguous()
        per_rank, per_rdma_rank, per_expert, is_token_in_rank, _ = buffer.get_dispatch_layout(indices, self._n_experts)
        received, local_indices, local_gates, rows_per_expert, handle, _ = buffer.dispatch(
            rows,
            topk_idx=indices,
            topk_weights=gates.contiguous(),
            num_tokens_per_rank=per_rank,
            num_tokens_per_rdma_rank=per_rdma_rank,
            is_token_in_rank=is_token_in_rank,
            num_tokens_per_expert=per_expert,
            expert_alignment=1,
            config=self._configs[0],
        )
        return Received(received, local_indices, local_gates, sum(rows_per_expert), (buffer, handle))

    def repeat(self, rows: Tensor, handle: Any) -> Tensor:
        """See `Transport`."""
        buffer, layout = handle
        received, _, _, _, _, _ = buffer.dispatch(rows.contiguous(), handle=layout, config=self._configs[0])
        return received

    def combine(self, rows: Tensor, handle: Any, gates: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """See `Transport`."""
        buffer, layout = handle
        gates = None if gates is None else gates.contiguous()
        combined, combined_gates, _ = buffer.combine(
            rows.contiguous(), handle=layout, topk_weights=gates, config=self._configs[1]
        )
        return combined, combined_gates

    def _buffer_for(self, hidden_size: int) -> Any:
        hidden_bytes = hidden_size * torch.bfloat16.itemsize
        if hidden_bytes > self._hidden_bytes:
            n_ranks = self._group.size()
            self._hidden_bytes = hidden_bytes
            self._buffer = self._buffer_class(
                self._group,
                max(config.get_nvl_buffer_size_hint(hidden_bytes, n_ranks) for config in self._configs),
                max(config.get_rdma_buffer_size_hint(hidden_bytes, n_ranks) for config in self._configs),
            )
        return self._buffer
