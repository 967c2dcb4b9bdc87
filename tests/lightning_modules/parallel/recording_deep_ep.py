"""A stand-in for the module `deep_ep`: its real signatures, on CPU tensors, and every call written down.

Ranks are threads that meet at a barrier. What DeepEP asserts about its arguments (csrc/elastic/buffer.hpp,
csrc/legacy/buffer.hpp) is asserted here, and what it leaves undefined is filled with something harmful.
"""

import inspect
import threading
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType, SimpleNamespace
from typing import Any

import torch

NUM_SMS = 24
# Written out from DeepEP 2.1.0; 1.x has the same arguments for `Buffer`.
SIGNATURES = {
    "ElasticBuffer": "(group, num_bytes=None, num_cpu_bytes=0, num_max_tokens_per_rank=0, hidden=0, num_topk=0, "
    "use_fp8_dispatch=False, deterministic=False, allow_hybrid_mode=True, allow_multiple_reduction=True, "
    "prefer_overlap_with_compute=True, sl_idx=3, num_allocated_qps=0, num_cpu_timeout_secs=300, "
    "num_gpu_timeout_secs=100, explicitly_destroy=False)",
    "ElasticBuffer.dispatch": "(self, x, topk_idx=None, topk_weights=None, cumulative_local_expert_recv_stats=None, "
    "num_experts=None, num_max_tokens_per_rank=None, expert_alignment=None, num_sms=0, num_qps=0, "
    "previous_event=None, previous_event_before_epilogue=None, async_with_compute_stream=False, "
    "allocate_on_comm_stream=False, handle=None, do_handle_copy=True, do_cpu_sync=None, do_expand=False, "
    "do_zero_padding=False, use_tma_aligned_col_major_sf=False)",
    "ElasticBuffer.combine": "(self, x, handle, topk_weights=None, bias=None, num_sms=0, num_qps=0, "
    "previous_event=None, previous_event_before_epilogue=None, async_with_compute_stream=False, "
    "allocate_on_comm_stream=False)",
    "Buffer": "(group, num_nvl_bytes=0, num_rdma_bytes=0, low_latency_mode=False, num_qps_per_rank=24, "
    "allow_nvlink_for_low_latency_mode=True, allow_mnnvl=False, explicitly_destroy=False, enable_shrink=False, "
    "comm=None)",
    "Buffer.get_dispatch_layout": "(self, topk_idx, num_experts, previous_event=None, async_finish=False, "
    "allocate_on_comm_stream=False)",
    "Buffer.dispatch": "(self, x, handle=None, num_tokens_per_rank=None, num_tokens_per_rdma_rank=None, "
    "is_token_in_rank=None, num_tokens_per_expert=None, topk_idx=None, topk_weights=None, expert_alignment=1, "
    "num_worst_tokens=0, config=None, previous_event=None, async_finish=False, allocate_on_comm_stream=False)",
    "Buffer.combine": "(self, x, handle, topk_weights=None, bias=None, config=None, previous_event=None, "
    "async_finish=False, allocate_on_comm_stream=False)",
}


class World:
    """Ranks in one process: where they leave what they send, and which calls they made."""

    def __init__(self, n_ranks: int, index_type: torch.dtype = torch.int64) -> None:
        self.n_ranks = n_ranks
        self.index_type = index_type
        self.calls: list[dict[str, Any]] = []
        self._left: dict[int, Any] = {}
        self._barrier = threading.Barrier(n_ranks, timeout=30)

    def gather(self, rank: int, value: Any) -> list[Any]:
        """What every rank brought along, in order of ranks; all of them have to call."""
        self._left[rank] = value
        self._barrier.wait()
        values = [self._left[r] for r in range(self.n_ranks)]
        self._barrier.wait()
        return values

    def run(self, function: Any) -> list[Any]:
        """`function(rank)` on every rank, as threads; the results in order."""

        def guarded(rank: int) -> Any:
            try:
                return function(rank)
            except BaseException:
                self._barrier.abort()
                raise

        with ThreadPoolExecutor(self.n_ranks) as pool:
            return [future.result() for future in [pool.submit(guarded, rank) for rank in range(self.n_ranks)]]

    def mesh(self, rank: int) -> Any:
        """What the dispatcher asks a DeviceMesh for, as that rank."""
        group = SimpleNamespace(rank=lambda: rank, size=lambda: self.n_ranks, world=self)
        return SimpleNamespace(size=lambda: self.n_ranks, get_group=lambda: group)

    def record(self, function: Any, arguments: dict[str, Any]) -> None:
        """Note a call by its name, defaults included."""
        arguments = {name: value for name, value in arguments.items() if name not in ("self", "__class__")}
        self.calls.append({"call": function, **arguments})

    def named(self, function: str) -> list[dict[str, Any]]:
        """The calls of one function, from whatever rank."""
        return [call for call in self.calls if call["call"] == function]


def deep_ep_module(world: World, version: str | None) -> ModuleType:
    """The module as it looks to a caller: 2.x has both buffers, 1.x only `Buffer` and no version of its own."""
    module = ModuleType("deep_ep")
    members: dict[str, Any] = {"Buffer": Buffer, "Config": Config, "topk_idx_t": world.index_type}
    if version is not None:
        members |= {"__version__": version, "ElasticBuffer": ElasticBuffer}
    vars(module).update(members)
    return module


class _Exchange:
    """The arithmetic that both APIs share: one row to each rank that holds any of the token's experts."""

    def __init__(self, group: Any) -> None:
        self.world: World = group.world
        self.rank = group.rank()

    def check_payload(self, x: Any) -> None:
        values, scales = x if isinstance(x, tuple) else (x, None)
        assert values.dim() == 2
        assert values.is_contiguous()
        assert values.shape[1] * values.element_size() % 16 == 0
        if scales is None:
            assert values.dtype == torch.bfloat16
        else:
            assert values.dtype == torch.float8_e4m3fn
            assert scales.dtype == torch.float32
            assert scales.shape == (values.shape[0], values.shape[1] // 128)

    def check_routing(self, x: Any, indices: torch.Tensor, weights: torch.Tensor, n_experts: int) -> None:
        values = x[0] if isinstance(x, tuple) else x
        assert indices.dtype == self.world.index_type
        assert weights.dtype == torch.float32
        assert indices.shape == weights.shape
        assert indices.shape[0] == values.shape[0]
        assert indices.is_contiguous()
        assert weights.is_contiguous()
        assert ((indices >= -1) & (indices < n_experts)).all()

    def receive(self, x: Any, sources: list[tuple[int, int]]) -> Any:
        """The rows of all ranks that `sources` (rank, token) name, as this rank receives them."""
        parts = x if isinstance(x, tuple) else (x,)
        everyone = self.world.gather(self.rank, [part.detach().clone() for part in parts])
        received = []
        for place, part in enumerate(parts):
            rows = [everyone[rank][place][token] for rank, token in sources]
            received.append(torch.stack(rows) if rows else part.new_empty(0, *part.shape[1:]))
        return tuple(received) if isinstance(x, tuple) else received[0]

    def route(self, indices: torch.Tensor, n_experts: int) -> tuple[list[tuple[int, int]], torch.Tensor]:
        """Which tokens (rank, token) come here, and their experts [T, K] counted from the first of this rank."""
        everyone = self.world.gather(self.rank, indices.detach().clone())
        n_local = n_experts // self.world.n_ranks
        first = self.rank * n_local
        sources, local = [], []
        for rank, theirs in enumerate(everyone):
            for token, row in enumerate(theirs):
                here = (row >= first) & (row < first + n_local)
                if here.any():
                    sources.append((rank, token))
                    local.append(torch.where(here, row - first, -1))
        return sources, torch.stack(local) if local else indices.new_empty(0, indices.shape[1])

    def send_back(
        self, x: torch.Tensor, gates: torch.Tensor | None, sources: list[tuple[int, int]], shape: tuple[int, int]
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Sum every rank's rows, unweighted, and its gates, into this rank's tokens; `shape` is [N, K]."""
        assert x.dtype == torch.bfloat16
        assert x.is_contiguous()
        assert x.shape[0] == len(sources)
        if gates is not None:
            assert gates.dtype == torch.float32
            assert gates.is_contiguous()
            assert gates.shape == (x.shape[0], shape[1])
        everyone = self.world.gather(self.rank, (sources, x.detach().clone(), None if gates is None else gates.clone()))
        combined = torch.zeros(shape[0], x.shape[1])
        combined_gates = torch.zeros(shape)
        for theirs, rows, their_gates in everyone:
            for place, (rank, token) in enumerate(theirs):
                if rank == self.rank:
                    combined[token] += rows[place].float()
                    if their_gates is not None:
                        combined_gates[token] += their_gates[place]
        return combined.bfloat16(), None if gates is None else combined_gates


class ElasticBuffer:
    def __init__(
        self, group, num_bytes=None, num_cpu_bytes=0, num_max_tokens_per_rank=0, hidden=0, num_topk=0,
        use_fp8_dispatch=False, deterministic=False, allow_hybrid_mode=True, allow_multiple_reduction=True,
        prefer_overlap_with_compute=True, sl_idx=3, num_allocated_qps=0, num_cpu_timeout_secs=300,
        num_gpu_timeout_secs=100, explicitly_destroy=False,
    ):  # fmt: skip
        group.world.record("ElasticBuffer", locals())
        self._exchange = _Exchange(group)
        self._limits = (num_max_tokens_per_rank, hidden * (1 if use_fp8_dispatch else 2))

    def dispatch(
        self, x, topk_idx=None, topk_weights=None, cumulative_local_expert_recv_stats=None, num_experts=None,
        num_max_tokens_per_rank=None, expert_alignment=None, num_sms=0, num_qps=0, previous_event=None,
        previous_event_before_epilogue=None, async_with_compute_stream=False, allocate_on_comm_stream=False,
        handle=None, do_handle_copy=True, do_cpu_sync=None, do_expand=False, do_zero_padding=False,
        use_tma_aligned_col_major_sf=False,
    ):  # fmt: skip
        exchange = self._exchange
        exchange.world.record("ElasticBuffer.dispatch", locals())
        exchange.check_payload(x)
        values = x[0] if isinstance(x, tuple) else x
        assert values.shape[1] * values.element_size() <= self._limits[1], "the buffer is too small"
        if handle is not None:
            assert topk_idx is None
            assert not do_cpu_sync
            # Else: get_theoretical_num_sms(None, …) fails, or the layout between nodes does not fit.
            assert num_sms == handle.num_sms
            return exchange.receive(x, handle.sources), None, None, handle, None
        exchange.check_routing(x, topk_idx, topk_weights, num_experts)
        assert values.shape[0] <= num_max_tokens_per_rank <= self._limits[0]
        assert len(set(exchange.world.gather(exchange.rank, num_max_tokens_per_rank))) == 1
        assert not do_expand
        sources, local = exchange.route(topk_idx, num_experts)
        # In no order that a caller may count on.
        order = list(reversed(range(len(sources))))
        sources, local = [sources[i] for i in order], local[order]
        handle = SimpleNamespace(
            num_sms=num_sms or NUM_SMS,
            topk_idx=topk_idx.clone(),
            num_recv_tokens_per_expert_list=_counts(local, num_experts // exchange.world.n_ranks, expert_alignment),
            sources=sources,
            local=local,
        )
        # The weights of choices that live elsewhere come along unchanged.
        return exchange.receive(x, sources), local, exchange.receive(topk_weights, sources), handle, None

    def combine(
        self, x, handle, topk_weights=None, bias=None, num_sms=0, num_qps=0, previous_event=None,
        previous_event_before_epilogue=None, async_with_compute_stream=False, allocate_on_comm_stream=False,
    ):  # fmt: skip
        self._exchange.world.record("ElasticBuffer.combine", locals())
        assert x.shape[1] * 2 <= self._limits[1], "the buffer is too small"
        return *self._exchange.send_back(x, topk_weights, handle.sources, tuple(handle.topk_idx.shape)), None


class Config:
    def __init__(self, kind: str) -> None:
        self.kind = kind

    def get_nvl_buffer_size_hint(self, hidden_bytes: int, num_ranks: int) -> int:
        return hidden_bytes * num_ranks * (3 if self.kind == "dispatch" else 2)

    def get_rdma_buffer_size_hint(self, hidden_bytes: int, num_ranks: int) -> int:
        return hidden_bytes * num_ranks * (5 if self.kind == "dispatch" else 7)


class Buffer:
    def __init__(
        self, group, num_nvl_bytes=0, num_rdma_bytes=0, low_latency_mode=False, num_qps_per_rank=24,
        allow_nvlink_for_low_latency_mode=True, allow_mnnvl=False, explicitly_destroy=False, enable_shrink=False,
        comm=None,
    ):  # fmt: skip
        group.world.record("Buffer", locals())
        self._exchange = _Exchange(group)

    @staticmethod
    def get_dispatch_config(num_ranks: int) -> Config:
        assert num_ranks in (2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 144, 160), f"Unsupported number of EP ranks: {num_ranks}"  # noqa: E501  # fmt: skip
        return Config("dispatch")

    @staticmethod
    def get_combine_config(num_ranks: int) -> Config:
        assert num_ranks in (2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 144, 160)
        return Config("combine")

    def get_dispatch_layout(
        self, topk_idx, num_experts, previous_event=None, async_finish=False, allocate_on_comm_stream=False
    ):
        world = self._exchange.world
        world.record("Buffer.get_dispatch_layout", locals())
        assert topk_idx.dtype == world.index_type
        per_expert = torch.bincount(topk_idx.flatten()[topk_idx.flatten() >= 0], minlength=num_experts).int()
        ranks = torch.where(topk_idx < 0, -1, topk_idx // (num_experts // world.n_ranks))
        in_rank = torch.stack([(ranks == rank).any(dim=1) for rank in range(world.n_ranks)], dim=1)
        return in_rank.sum(dim=0).int(), None, per_expert, in_rank, None

    def dispatch(
        self, x, handle=None, num_tokens_per_rank=None, num_tokens_per_rdma_rank=None, is_token_in_rank=None,
        num_tokens_per_expert=None, topk_idx=None, topk_weights=None, expert_alignment=1, num_worst_tokens=0,
        config=None, previous_event=None, async_finish=False, allocate_on_comm_stream=False,
    ):  # fmt: skip
        exchange = self._exchange
        exchange.world.record("Buffer.dispatch", locals())
        exchange.check_payload(x)
        assert config is None or config.kind == "dispatch"
        if handle is not None:
            assert topk_idx is None
            assert topk_weights is None
            return exchange.receive(x, handle[0]), None, None, None, None, None
        num_experts = num_tokens_per_expert.shape[0]
        exchange.check_routing(x, topk_idx, topk_weights, num_experts)
        per_rank, per_rdma_rank, per_expert, in_rank, _ = self.get_dispatch_layout(topk_idx, num_experts)
        assert torch.equal(num_tokens_per_rank, per_rank)
        assert torch.equal(num_tokens_per_expert, per_expert)
        assert torch.equal(is_token_in_rank, in_rank)
        assert num_tokens_per_rdma_rank is per_rdma_rank
        sources, local = exchange.route(topk_idx, num_experts)
        weights = torch.where(local >= 0, exchange.receive(topk_weights, sources), 0.0)
        counts = _counts(local, num_experts // exchange.world.n_ranks, expert_alignment)
        return exchange.receive(x, sources), local, weights, counts, (sources, tuple(topk_idx.shape)), None

    def combine(
        self, x, handle, topk_weights=None, bias=None, config=None, previous_event=None, async_finish=False,
        allocate_on_comm_stream=False,
    ):  # fmt: skip
        self._exchange.world.record("Buffer.combine", locals())
        assert config is None or config.kind == "combine"
        return *self._exchange.send_back(x, topk_weights, *handle), None


def _counts(local: torch.Tensor, n_local_experts: int, alignment: int | None) -> list[int]:
    alignment = alignment or 1
    return [-(-int((local == expert).sum()) // alignment) * alignment for expert in range(n_local_experts)]


def stub_signature(name: str) -> str:
    """The signature that the stand-in has, as `SIGNATURES` writes them."""
    owner, _, method = name.partition(".")
    function = getattr(globals()[owner], method) if method else globals()[owner]
    return str(inspect.signature(function))
