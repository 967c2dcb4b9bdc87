"""Continuous batching: rows that are continued together, and come and go one by one."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from lightning_modules.model.cache import LatentCache
from lightning_modules.model.counting import count_parameters
from lightning_modules.model.decoder import Decoder
from lightning_modules.model.decoding.graph import RecordedSteps
from lightning_modules.model.decoding.outbox import Outbox
from lightning_modules.model.decoding.program import NextToken, Program
from lightning_modules.model.decoding.sampling import TokenSource
from lightning_modules.model.decoding.speculation import Acceptance, Speculation
from lightning_modules.model.decoding.state import RowState
from lightning_modules.model.decoding.step import row_step
from lightning_modules.model.sampling_configuration import SamplingConfig
from lightning_modules.model.sliding import window_start
from lightning_modules.model.threads import threads_for


class Spoken(NamedTuple):
    """What a row has said since it was last read, and whether that was all."""

    row: int
    tokens: list[int]
    has_ended: bool


@dataclass(eq=False)
class Seat:
    """What the host knows of the one who sits in a row.

    Attributes:
        row: which.
        limit: tokens at which the row ends.
        length: tokens of the row that have been read.
        n_unread: steps that it has taken since.
        start: where its window begins: what the cache holds.
    """

    row: int
    limit: int
    length: int
    n_unread: int = 0
    start: int = 0

    def longest(self, width: int) -> int:
        """The most tokens that it can have, when a step adds up to `width`."""
        return min(self.length + self.n_unread * width, self.limit)


class Engine:
    """Continues rows of tokens, one step after another, all of them at once.

    A row says the same tokens for the same seed whoever sits beside it. On a GPU a step is launched and not waited for:
    what it has said is read some steps later, and rows that have ended meanwhile stay as they are.

    Args:
        decoder: the model, in evaluation mode.
        n_rows: how many rows there are to sit in.
        capacity: tokens that a row may have, its prompt included.
        sampling: how tokens are drawn.
        allowed: [Q, V] masks of legal tokens (see `generate`).
        end_token: ends the row that draws it.
        fp8_cache: keep the latents in FP8.
        context: tokens that the model has learnt to look back over: longer rows are seen through windows of so many
            (see `window_start`). None: rows look back over everything.
        cache: what the first prompts continue, which then take all rows at once; in place of a new one. It has to hold
            `capacity` tokens a row.
        prefill_chunk_size: tokens of a prompt computed at a time; None takes all at once.
        acceptance: with it, the multi-token-prediction modules draft, and how many drafts are accepted is counted here.

    Raises:
        ValueError: `context` is below 2, or comes with a cache, chunks or drafts; `cache` is too small, or comes with
            drafts; the decoder cannot draft.
    """

    def __init__(
        self,
        decoder: Decoder,
        n_rows: int,
        capacity: int,
        sampling: SamplingConfig,
        allowed: Tensor | None = None,
        end_token: int | None = None,
        fp8_cache: bool = False,
        context: int | None = None,
        cache: LatentCache | None = None,
        prefill_chunk_size: int | None = None,
        acceptance: Acceptance | None = None,
    ) -> None:
        if context is not None and (context < 2 or cache is not None or prefill_chunk_size is not None):
            raise ValueError(f"context is {context}; it takes 2 or more, and neither a cache nor chunks beside it.")
        if acceptance is not None and (context is not None or cache is not None):
            raise ValueError("Speculative decoding takes neither a context nor a cache.")
        weight, source = decoder.embed_tokens.weight, TokenSource(sampling, allowed, end_token)
        if cache is None:
            held = capacity if context is None else min(context + 1, capacity)
            # Beyond the last token of a full row stand drafts, which do not count.
            held += 0 if acceptance is None else 2 * len(decoder.mtp)
            cache = LatentCache(decoder.config, n_rows, held, weight.dtype, weight.device, fp8_cache)
        elif cache.capacity < capacity:
            raise ValueError(f"The cache holds {cache.capacity} tokens, {capacity} are needed; allocate a larger one.")
        self.capacity = capacity
        self._context = context
        self._chunk_size = prefill_chunk_size
        self._device = weight.device
        self._held = cache.lengths.tolist()
        self._acceptance = acceptance
        make = NextToken if acceptance is None else Speculation.over
        self._program: Program = make(decoder, source, cache, row_step(decoder))
        self._n_multiplications = self._program.width * count_parameters(decoder).active_without_embedding
        self._state = RowState.empty(n_rows, capacity, self._program.width, weight.device)
        self._seats: list[Seat | None] = [None] * n_rows
        self._outbox: Outbox[Seat | None] = Outbox()
        # Of what waits for its host nothing can be recorded: it runs kernel by kernel.
        can_record = weight.is_cuda and not decoder.waits_for_host
        self._recorded = RecordedSteps(_steps_of(self._program, self._state), n_rows) if can_record else None

    @property
    def free_rows(self) -> list[int]:
        """The rows nobody sits in, the first of which are taken first."""
        return [row for row, seat in enumerate(self._seats) if seat is None]

    @property
    def n_unread(self) -> int:
        """How many steps have been launched and not read."""
        return len(self._outbox)

    @torch.inference_mode()
    def join(self, prompts: Sequence[Tensor], max_new_tokens: Sequence[int], seeds: Sequence[int]) -> list[int]:
        """Give each prompt a row, in which it is continued from the next step on.

        Args:
            prompts: tokens [T] of each, of any lengths, the beginning-of-document token first.
            max_new_tokens: how many to add to each at most.
            seeds: of each row's random numbers.

        Returns:
            The rows.

        Raises:
            ValueError: when a prompt is empty or has too little room, or there are more prompts than free rows.
        """
        if not prompts:
            return []
        rows = self._rows_for(prompts)
        held = [self._held[row] for row in rows]
        lengths = [n + len(prompt) for n, prompt in zip(held, prompts, strict=True)]
        limits = [length + n for length, n in zip(lengths, max_new_tokens, strict=True)]
        if max(limits) > self.capacity:
            raise ValueError(f"A row may have {self.capacity} tokens, {max(limits)} are needed; allow it more.")
        # What a cache held at first is not known by its tokens, which nothing asks for.
        known = [torch.cat((prompt.new_zeros(n), prompt)) for n, prompt in zip(held, prompts, strict=True)]
        starts = [0 if self._context is None else window_start(length - 1, self._context) for length in lengths]
        self._seat(rows, known, lengths, starts, limits, seeds)
        # The last token is what the first step feeds.
        parts = [tokens[max(start, n) : -1] for tokens, start, n in zip(known, starts, held, strict=True)]
        self._program.prefill(rows, self._padded(parts), [*map(len, parts)], held, self._chunk_size)
        for row, length, limit, start in zip(rows, lengths, limits, starts, strict=True):
            self._seats[row] = Seat(row, limit, length, start=start)
            self._held[row] = 0
        return rows

    @torch.inference_mode()
    def leave(self, row: int) -> None:
        """Free a row; what it has said and nobody has read is dropped."""
        self._seats[row] = None
        self._state.vacate(row)

    @torch.inference_mode()
    def step(self) -> None:
        """Add to every row in which somebody sits; on a GPU, without waiting until it is done.

        Nothing happens while all rows may be full, for all that has been read.
        """
        seated = [seat for seat in self._seats if seat is not None]
        if all(seat.n_unread and seat.longest(self._program.width) == seat.limit for seat in seated):
            return
        if self._context is not None:
            self._slide([seat for seat in seated if self._n_seen(seat) >= self._context])
        n_rows = seated[-1].row + 1
        if self._recorded is not None:
            self._recorded.run(n_rows)
        else:
            program, state = _first(self._program, self._state, n_rows)
            with threads_for(n_rows * self._n_multiplications):
                program.step(state, max(map(self._n_seen, seated)))
        for seat in seated:
            seat.n_unread += 1
        self._outbox.post(self._state.said[:n_rows], self._seats[:n_rows])

    def read(self, wait: bool = False) -> list[Spoken]:
        """What has been said since the last read, and has arrived here; with `wait`, all of it.

        Rows that have ended are free from then on.
        """
        spoken: dict[int, Spoken] = {}
        while self._outbox and (wait or self._outbox.has_arrived()):
            for row, tokens, has_ended in self.read_step():
                earlier = spoken[row].tokens if row in spoken else []
                spoken[row] = Spoken(row, earlier + tokens, has_ended)
        return list(spoken.values())

    def read_step(self) -> list[Spoken]:
        """What the oldest unread step has said, waited for; nothing when there is none."""
        spoken = []
        for seat, (n_added, n_offered, n_left, *tokens) in self._outbox.take() if self._outbox else ():
            if seat is None or self._seats[seat.row] is not seat:
                continue
            seat.length += n_added
            seat.n_unread -= 1
            if self._acceptance is not None and n_added:
                self._acceptance.count(self._program.width - 1, n_offered - 1)
            spoken.append(Spoken(seat.row, tokens[:n_added], n_left <= 0))
            if n_left <= 0:
                self.leave(seat.row)
        return spoken

    def _n_seen(self, seat: Seat) -> int:
        """How many tokens of a row the cache may hold; not the last, which a step feeds."""
        return seat.longest(self._program.width) - 1 - seat.start

    def _rows_for(self, prompts: Sequence[Tensor]) -> list[int]:
        """Free rows for prompts, which have to be as `join` says."""
        rows = self.free_rows[: len(prompts)]
        if len(rows) < len(prompts):
            raise ValueError(f"{len(prompts)} prompts came, and {len(rows)} rows are free; let others leave first.")
        if not all(map(len, prompts)):
            raise ValueError("A prompt is empty: start speech from nothing with the beginning-of-document token.")
        if any(self._held) and len(rows) < len(self._seats):
            raise ValueError("A cache that holds beginnings is continued by all of its rows at once.")
        return rows

    def _seat(
        self,
        rows: list[int],
        known: list[Tensor],
        lengths: list[int],
        starts: list[int],
        limits: list[int],
        seeds: Sequence[int],
    ) -> None:
        """Tell the device who sits where."""
        offsets = [start + 1 for start in starts]
        numbers = torch.tensor([rows, lengths, offsets, limits, list(seeds)], device=self._device)
        self._state.seat(numbers[0], self._padded(known), *numbers[1:])

    def _slide(self, full: list[Seat]) -> None:
        """Move the windows of rows that the cache is full of."""
        if not full:
            return
        assert self._context is not None
        rows, ends = [seat.row for seat in full], [seat.longest(self._program.width) - 1 for seat in full]
        starts = [window_start(end, self._context) for end in ends]
        parts = [self._state.tokens[row, start:end] for row, start, end in zip(rows, starts, ends, strict=True)]
        self._program.prefill(rows, self._padded(parts), [*map(len, parts)], [0] * len(rows), None)
        self._state.move(torch.tensor(rows, device=self._device), torch.tensor(starts, device=self._device) + 1)
        for seat, start in zip(full, starts, strict=True):
            seat.start = start

    def _padded(self, parts: Sequence[Tensor]) -> Tensor:
        """Tokens [N, T] of all parts side by side, with zeros behind the shorter ones."""
        return pad_sequence(list(parts), batch_first=True).to(self._device)


def _first(program: Program, state: RowState, n_rows: int) -> tuple[Program, RowState]:
    """What continues the first rows."""
    if n_rows == len(state.lengths):
        return program, state
    return program.first(n_rows), state.first(n_rows)


def _steps_of(program: Program, state: RowState) -> Callable[[int], Callable[[], None]]:
    """What steps over so many first rows, and looks at all of their cache, whatever its lengths."""

    def step_of_first(n_rows: int) -> Callable[[], None]:
        rows = _first(program, state, n_rows)
        return lambda: rows[0].step(rows[1], program.room)

    return step_of_first
