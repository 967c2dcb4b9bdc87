"""Our own decoding, through the engine, as whoever serves it runs it."""

import torch
from torch import Tensor

from benchmarks.clock import StepClock
from benchmarks.decoding.kernels import KernelTimes, kernel_times
from benchmarks.decoding.workload import DecodingWorkload
from lightning_modules.model.cache import LatentCache
from lightning_modules.model.decoder import Decoder
from lightning_modules.model.decoding.engine import Engine
from lightning_modules.model.decoding.prefill import prefill
from lightning_modules.model.decoding.speculation import Acceptance
from lightning_modules.model.sampling_configuration import SamplingConfig

GREEDY, DRAWN = SamplingConfig(temperature=0.0), SamplingConfig(temperature=1.0)
# First steps, whose tokens are the best ones, so that a peer can judge them.
N_GREEDY = 8
# Tokens of a row that are computed at a time; as many in all rows together where there are several.
CHUNK = 32768


class OurDecoding:
    """Continues all rows, greedily at first, and keeps what they say.

    Greedy rows of a random model soon say the same few tokens, and choose the same few experts. After the first steps
    each row's tokens are therefore drawn, by its own seed, at temperature 1.

    Args:
        decoder: the model. With prediction modules it speculates, greedily to the end, and every row's beginning is
            computed by itself.
        workload: the rows.
        clock: of the steps.
        is_profiled: whether a few steps more are profiled in the end.

    Attributes:
        kernels: of the steps that were profiled.
    """

    def __init__(
        self, decoder: Decoder, workload: DecodingWorkload, clock: StepClock, is_profiled: bool = False
    ) -> None:
        self.decoder = decoder
        self.workload = workload
        self.clock = clock
        self.kernels: KernelTimes | None = None
        self._is_profiled = is_profiled
        self._acceptance = Acceptance() if workload.n_drafts else None
        self._said: list[list[int]] = [[] for _ in range(workload.batch)]
        self._cache: LatentCache | None = None
        self._facts: dict[str, float] = {}
        prompts = workload.rows()
        if self._acceptance is None:
            self._cache, prefill_ms = filled_cache(decoder, workload, clock.device)
            self._facts = {"cache_gib": _gib(self._cache), "prefill_ms": round(prefill_ms, 3)}
            prompts = workload.own_tokens()
        self._engine: Engine | None = self._engine_of(
            GREEDY, prompts.to(clock.device), workload.capacity - workload.context
        )

    def step(self) -> None:
        """Launch a step, and fetch what has arrived meanwhile."""
        n_taken = self.clock.n_steps
        if n_taken == N_GREEDY and self._acceptance is None:
            last = self.tokens()[:, -1:]
            self._engine = self._engine_of(DRAWN, last, self.workload.n_steps - n_taken)
        assert self._engine is not None
        self.clock.start()
        self._engine.step()
        self._keep(wait=False)
        self.clock.stop()

    def tokens(self) -> Tensor:
        """What all rows have said so far [B, n]; what some have said beyond that is left out."""
        self._keep(wait=True)
        shortest = min(map(len, self._said))
        return torch.tensor([said[:shortest] for said in self._said], device=self.clock.device)

    def release(self) -> None:
        """Let go of the cache, and of the graphs over it."""
        if self._is_profiled and self._engine is not None:
            self.kernels = kernel_times(self._engine.step)
        self._engine = self._cache = None

    def facts(self) -> dict[str, float]:
        """How large the cache is, how long computing the shared beginning once took, and how drafts have fared."""
        if self._acceptance is None:
            return self._facts
        return {
            "acceptance": round(self._acceptance.rate, 4),
            "tokens_per_round": round(self._acceptance.tokens_per_round, 4),
        }

    def tokens_per_step(self) -> float:
        """Of all rows together, on average."""
        return sum(map(len, self._said)) / self.clock.n_steps

    def _engine_of(self, sampling: SamplingConfig, prompts: Tensor, n_new: int) -> Engine:
        """An engine in which all rows sit: `prompts` [B, T] behind what the cache holds, and `n_new` tokens to say."""
        n_rows = self.workload.batch
        engine = Engine(
            self.decoder,
            n_rows,
            self.workload.capacity,
            sampling,
            fp8_cache=self.workload.fp8_cache,
            cache=self._cache,
            prefill_chunk_size=CHUNK,
            acceptance=self._acceptance,
        )
        engine.join(list(prompts), [n_new] * n_rows, list(range(n_rows)))
        return engine

    def _keep(self, wait: bool) -> None:
        for spoken in self._engine.read(wait) if self._engine is not None else ():
            self._said[spoken.row] += spoken.tokens


class OurPrefill:
    """Computes whole prompts, again and again, and keeps the token that each would be continued with.

    Args:
        decoder: the model.
        workload: the rows.
        clock: of the prefills.
        is_profiled: whether a few prefills more are profiled in the end.

    Attributes:
        kernels: of the prefills that were profiled.
    """

    def __init__(
        self, decoder: Decoder, workload: DecodingWorkload, clock: StepClock, is_profiled: bool = False
    ) -> None:
        self.decoder = decoder
        self.clock = clock
        self.kernels: KernelTimes | None = None
        self._is_profiled = is_profiled
        self._chunk = max(CHUNK // workload.batch, 1)
        self.prompts = workload.prompts().to(clock.device)
        self.cache = _empty_cache(workload, workload.batch, workload.context, clock.device)
        self._gib = _gib(self.cache)
        self._said: list[Tensor] = []

    def step(self) -> None:
        """Prefill all prompts."""
        self.clock.start()
        self._said.append(self._prefill())
        self.clock.stop()

    def facts(self) -> dict[str, float]:
        """How large the cache is."""
        return {"cache_gib": self._gib}

    def tokens_per_step(self) -> float:
        """Of all prompts together."""
        return self.prompts.numel()

    def _prefill(self) -> Tensor:
        """The tokens that continue the prompts [B]."""
        self.cache.truncate(0)
        return prefill(self.decoder, self.prompts, self.cache, self._chunk).argmax(-1)

    def release(self) -> None:
        """Let go of the cache."""
        if self._is_profiled:
            self.kernels = kernel_times(self._prefill)
        del self.cache

    def tokens(self) -> Tensor:
        """The tokens after the prompts [B, n], the same every time."""
        return torch.stack(self._said, dim=1)


def filled_cache(decoder: Decoder, workload: DecodingWorkload, device: torch.device) -> tuple[LatentCache, float]:
    """A cache of all rows that holds what they share, and the milliseconds that computing it once took."""
    shared = workload.shared_tokens().to(device)
    clock = StepClock(device)
    one = _empty_cache(workload, 1, shared.shape[1], device)
    clock.start()
    prefill(decoder, shared, one, CHUNK)
    clock.stop()
    cache = _empty_cache(workload, workload.batch, workload.capacity, device)
    cache.replace_rows(torch.arange(workload.batch, device=device), one)
    return cache, clock.milliseconds()[0]


def _empty_cache(workload: DecodingWorkload, n_rows: int, capacity: int, device: torch.device) -> LatentCache:
    return LatentCache(workload.decoder, n_rows, capacity, workload.dtype, device, workload.fp8_cache)


def _gib(cache: LatentCache) -> float:
    return round(cache.bytes_per_token * cache.latent.shape[1] * cache.capacity / 2**30, 6)
