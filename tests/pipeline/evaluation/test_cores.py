"""Processes that share a CPU find what one finds."""

import os

import numpy as np
import pytest
import torch

from lightning_modules.model.sampling_configuration import SamplingConfig
from pipeline.evaluation.cores import on_all_cores
from pipeline.evaluation.scoring import score_documents, token_nats
from pipeline.evaluation.synthesis import generate_codes

FRAMES = [9, 1, 30, 4, 17, 6, 12]


@pytest.fixture
def two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.evaluation.cores.free_cores", lambda: 2)


def process_of_each(items, shows_progress: bool) -> list[tuple[int, bool]]:
    return [(os.getpid(), shows_progress)] * len(items)


def test_who_works(two_cores: None) -> None:
    here, cpu = os.getpid(), torch.device("cpu")
    assert on_all_cores(process_of_each, range(4), 100, cpu) == [[(here, True)] * 4]
    assert on_all_cores(process_of_each, range(4), 10**6, torch.device("cuda")) == [[(here, True)] * 4]
    assert on_all_cores(process_of_each, [], 0, cpu) == [[]]
    first, second = on_all_cores(process_of_each, range(3), 10**6, cpu)
    assert [shown for _, shown in first + second] == [True, True, False]
    assert here not in {process for process, _ in first + second}


def test_two_processes_find_what_one_finds(
    build_decoder, random_split, two_cores: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoder, documents = build_decoder(), random_split("test", FRAMES)
    prompts = [documents.vocabulary.tokens_to_codes(torch.from_numpy(documents[i]))[:1] for i in range(5)]

    def found():
        score = score_documents(decoder, documents, 2, tokens_per_batch=40)
        spoken = generate_codes(decoder, documents.vocabulary, prompts, 8, SamplingConfig(), 3, 4)
        return score, token_nats(decoder, documents, tokens_per_batch=40), spoken

    score, nats, spoken = found()
    monkeypatch.setattr("pipeline.evaluation.cores.WORTH_A_PROCESS", 1)
    shared_score, shared_nats, shared_spoken = found()
    np.testing.assert_allclose(shared_score.nats, score.nats, atol=1e-4)
    for layer, counted in score.choices.items():
        for ours, theirs in zip(counted.tables(), shared_score.choices[layer].tables(), strict=True):
            torch.testing.assert_close(theirs, ours)
    for ours, theirs in zip(nats, shared_nats, strict=True):
        np.testing.assert_allclose(theirs, ours, atol=1e-4)
    assert [codes.tolist() for codes in shared_spoken] == [codes.tolist() for codes in spoken]
