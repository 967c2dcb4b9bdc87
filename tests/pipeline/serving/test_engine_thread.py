"""Continuous batching behind the server: utterances join, speak, leave and fail."""

import threading
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from lightning_modules.model.decoding.engine import Engine
from lightning_modules.model.sampling_configuration import SamplingConfig
from pipeline.evaluation.synthesis import opening_tokens
from pipeline.serving.engine_thread import BusyError, EngineThread, SpeechFailedError, Utterance
from pipeline.streaming.export import SpeakingExport
from pipeline.streaming.speech import row_seed, stream_tokens
from pipeline.tokens.vocabulary import Special
from tests.speaking_export import VOCABULARY

SAMPLING = SamplingConfig(temperature=1.0, top_k=5)
CAPACITY = 200


def engine_of(export: SpeakingExport, n_rows: int) -> Engine:
    return Engine(export.decoder, n_rows, CAPACITY, SAMPLING, export.allowed(), Special.EOS, context=64)


@pytest.fixture
def thread(export: SpeakingExport) -> Iterator[EngineThread]:
    thread = EngineThread(lambda: engine_of(export, 2), n_waiting=3, n_ahead=0)
    thread.start()
    yield thread
    thread.close()


def prompt_of(n_frames: int) -> Tensor:
    return torch.randint(0, 16, (n_frames, 2), generator=torch.Generator().manual_seed(n_frames))


def utterance_of(n_prompt: int, n_new: int, seed: int) -> Utterance:
    return Utterance(opening_tokens(VOCABULARY, prompt_of(n_prompt)), 2 * n_new, row_seed(seed))


@pytest.mark.parametrize("n_ahead", [0, 3])
def test_utterances_say_what_each_says_alone_though_they_wait_for_each_other(
    export: SpeakingExport, n_ahead: int
) -> None:
    thread = EngineThread(lambda: engine_of(export, 2), n_waiting=3, n_ahead=n_ahead)
    asked = [(0, 20, 1), (9, 40, 2), (3, 5, 3), (0, 30, 4), (20, 10, 5)]
    utterances = [utterance_of(*each) for each in asked]
    for utterance in utterances:
        thread.submit(utterance)
    thread.start()
    for (n_prompt, n_new, seed), utterance in zip(asked, utterances, strict=True):
        alone = stream_tokens(export, prompt_of(n_prompt), n_new, SAMPLING, seed)
        assert list(utterance.tokens()) == list(alone)
    assert thread.counts() == (0, 0)
    thread.close()


def test_whoever_leaves_makes_room(thread: EngineThread) -> None:
    long, waiting = [utterance_of(0, 90, seed) for seed in (1, 2)], utterance_of(0, 10, 3)
    for utterance in (*long, waiting):
        thread.submit(utterance)
    next(long[0].tokens())
    long[0].leave()
    assert len(list(waiting.tokens())) == 20
    assert not list(long[0].tokens())


def test_there_is_room_for_so_many_and_no_more(export: SpeakingExport) -> None:
    thread = EngineThread(lambda: engine_of(export, 2), n_waiting=3, n_ahead=0)
    for seed in range(5):
        thread.submit(utterance_of(0, 10, seed))
    with pytest.raises(BusyError):
        thread.submit(utterance_of(0, 10, 6))
    thread.start()
    thread.close()
    with pytest.raises(BusyError):
        thread.submit(utterance_of(0, 10, 7))


def test_an_engine_that_fails_is_replaced(export: SpeakingExport, caplog: pytest.LogCaptureFixture) -> None:
    built = []

    def build() -> Engine:
        engine = engine_of(export, 2)
        if not built:
            engine.step = lambda: 1 / 0
        built.append(engine)
        return engine

    thread = EngineThread(build, n_waiting=3, n_ahead=0)
    lost, waits = [utterance_of(0, 10, seed) for seed in (1, 2)], utterance_of(0, 10, 3)
    for utterance in (*lost, waits):
        thread.submit(utterance)
    thread.start()
    for utterance in lost:
        with pytest.raises(SpeechFailedError, match="the server's log says why"):
            list(utterance.tokens())
    assert len(list(waits.tokens())) == 20
    assert len(built) == 2
    assert "ZeroDivisionError" in caplog.text
    thread.close()


def test_what_is_not_at_its_end_when_the_thread_ends_is_told_so(thread: EngineThread) -> None:
    utterance = utterance_of(0, 95, 1)
    thread.submit(utterance)
    tokens = utterance.tokens()
    next(tokens)
    threading.Thread(target=thread.close).start()
    with pytest.raises(SpeechFailedError, match="The server is ending"):
        list(tokens)
