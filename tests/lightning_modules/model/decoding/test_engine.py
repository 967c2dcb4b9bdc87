"""Continuous batching: a row says what it would say alone, whoever comes and goes beside it."""

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lightning_modules.model.cache import LatentCache
from lightning_modules.model.decoder import Decoder
from lightning_modules.model.decoding.engine import Engine
from lightning_modules.model.decoding.speculation import Acceptance
from lightning_modules.model.sampling_configuration import SamplingConfig

END = 5
SAMPLINGS = [SamplingConfig(temperature=0), SamplingConfig(1.2), SamplingConfig(1.5, top_k=7, top_p=0.9)]


def prompt_of(length: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 40, (length,), generator=torch.Generator().manual_seed(seed))


def finished(engine: Engine, said: dict[int, list[int]]) -> list[int]:
    """Read what there is into `said`, by row; returns the rows that have ended."""
    ended = []
    for row, tokens, has_ended in engine.read(wait=True):
        said.setdefault(row, []).extend(tokens)
        ended += [row] if has_ended else []
    return ended


def alone(decoder: Decoder, prompt: torch.Tensor, n: int, sampling: SamplingConfig, seed: int, **options) -> list[int]:
    engine, said = Engine(decoder, 1, len(prompt) + n, sampling, **options), {}
    engine.join([prompt], [n], [seed])
    while not finished(engine, said):
        engine.step()
    return said[0]


@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("options", [{}, {"context": 12}, {"fp8_cache": True}])
def test_rows_that_come_late_and_go_early_say_what_they_would_alone(build_decoder, sampling, options) -> None:
    decoder = build_decoder()
    allowed = torch.ones(2, 40, dtype=torch.bool)
    allowed[0, 20:], allowed[1, 10:25] = False, False
    options = options | {"allowed": allowed, "end_token": END}
    engine = Engine(decoder, 3, 60, sampling, **options)
    waiting = [
        (prompt_of(length, length), n, 100 + length) for length, n in ((1, 9), (20, 30), (7, 1), (4, 25), (2, 40))
    ]
    expected = [alone(decoder, prompt, n, sampling, seed, **options) for prompt, n, seed in waiting]
    said, who, heard = {}, {}, {}
    for step in range(200):
        if waiting and engine.free_rows and step % 3 == 0:
            prompt, n, seed = waiting.pop(0)
            (row,) = engine.join([prompt], [n], [seed])
            who[row], said[row] = len(heard) + len(who), []
        engine.step()
        for row in finished(engine, said):
            heard[who.pop(row)] = said.pop(row)
    assert len(heard) == 5
    assert [heard[n] for n in range(5)] == expected
    assert engine.free_rows == [0, 1, 2]


# The same examples always: one draw in about a hundred thousand hangs on how sums over other rows are rounded.
@settings(deadline=None, max_examples=15, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_order_of_coming_and_going_changes_what_is_said(build_decoder, data) -> None:
    decoder, sampling, speculates = build_decoder(), SamplingConfig(1.3), data.draw(st.booleans())

    def engine(n_rows: int) -> Engine:
        return Engine(decoder, n_rows, 40, sampling, end_token=END, acceptance=Acceptance() if speculates else None)

    several, rows, heard = engine(3), {}, []
    for seed in range(25):
        event = data.draw(st.sampled_from(["join", "leave", "step", "step", "read", "wait"]))
        if event == "join" and several.free_rows:
            prompt, n = prompt_of(data.draw(st.integers(1, 20)), seed), data.draw(st.integers(0, 20))
            heard.append((prompt, n, seed, []))
            rows[several.join([prompt], [n], [seed])[0]] = heard[-1][3]
        elif event == "leave" and rows:
            row = data.draw(st.sampled_from(sorted(rows)))
            several.leave(row)
            del rows[row]
        elif event == "step":
            several.step()
        else:
            for row, tokens, has_ended in several.read(wait=event == "wait"):
                rows[row].extend(tokens)
                if has_ended:
                    del rows[row]
    for prompt, n, seed, tokens in heard:
        one, said = engine(1), {0: []}
        one.join([prompt], [n], [seed])
        while not finished(one, said):
            one.step()
        assert said[0][: len(tokens)] == tokens


def test_whoever_leaves_is_not_heard_and_disturbs_nobody(build_decoder) -> None:
    decoder, sampling = build_decoder(), SamplingConfig(1.0)
    engine = Engine(decoder, 2, 30, sampling)
    engine.join([prompt_of(5), prompt_of(3, 1)], [20, 20], [1, 2])
    engine.step()
    engine.leave(0)
    assert engine.free_rows == [0]
    engine.step()
    (row,) = engine.join([prompt_of(4, 2)], [6], [3])
    engine.step()
    said: dict[int, list[int]] = {}
    assert not finished(engine, said)
    assert len(said[1]) == 3
    assert len(said[row]) == 1
    for _ in range(5):
        engine.step()
    assert finished(engine, said) == [row]
    assert said[row] == alone(decoder, prompt_of(4, 2), 6, sampling, 3)
    assert said[1] == alone(decoder, prompt_of(3, 1), 20, sampling, 2)[:8]


def test_whoever_leaves_before_a_step_leaves_nothing_behind(build_decoder) -> None:
    decoder, sampling = build_decoder(), SamplingConfig(1.0)
    engine, said = Engine(decoder, 2, 120, sampling), {}
    assert engine.join([], [], []) == []
    engine.join([prompt_of(100), prompt_of(3, 1)], [20, 8], [1, 2])
    engine.leave(0)
    for _ in range(8):
        engine.step()
    assert finished(engine, said) == [1]
    assert said == {1: alone(decoder, prompt_of(3, 1), 8, sampling, 2)}


def test_what_is_read_late_is_the_same(build_decoder) -> None:
    decoder, sampling = build_decoder(), SamplingConfig(1.0)
    engine, said = Engine(decoder, 2, 30, sampling, context=6), {}
    engine.join([prompt_of(5), prompt_of(9, 1)], [4, 20], [1, 2])
    for _ in range(25):
        engine.step()
    assert finished(engine, said) == [0, 1]
    for row, (prompt, n) in enumerate(((prompt_of(5), 4), (prompt_of(9, 1), 20))):
        assert said[row] == alone(decoder, prompt, n, sampling, row + 1, context=6)
    assert not engine.read()
    engine.step()
    assert not engine.read(wait=True)


def test_a_row_without_room_to_speak_ends_at_once(build_decoder) -> None:
    engine, said = Engine(build_decoder(), 1, 5, SamplingConfig()), {}
    engine.join([prompt_of(5)], [0], [0])
    engine.step()
    assert finished(engine, said) == [0]
    assert said == {0: []}


def test_who_cannot_be_seated_is_refused(build_decoder) -> None:
    decoder = build_decoder()
    engine = Engine(decoder, 2, 8, SamplingConfig())
    with pytest.raises(ValueError, match="A prompt is empty"):
        engine.join([prompt_of(0)], [3], [0])
    with pytest.raises(ValueError, match="A row may have 8 tokens, 9 are needed"):
        engine.join([prompt_of(4)], [5], [0])
    with pytest.raises(ValueError, match="3 prompts came, and 2 rows are free"):
        engine.join([prompt_of(2)] * 3, [1] * 3, [0] * 3)
    assert engine.free_rows == [0, 1]
    held = LatentCache(decoder.config, 2, 8)
    decoder.extend_hidden(torch.ones(2, 3, dtype=torch.long), held)
    with pytest.raises(ValueError, match="continued by all of its rows at once"):
        Engine(decoder, 2, 8, SamplingConfig(), cache=held).join([prompt_of(2)], [1], [0])
    with pytest.raises(ValueError, match="The cache holds 8 tokens, 9 are needed"):
        Engine(decoder, 2, 9, SamplingConfig(), cache=held)
