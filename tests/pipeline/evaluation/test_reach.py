"""Where documents are longer than the windows of training: what is used is what was trained."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from lightning_modules.model.decoder import Decoder
from pipeline.evaluation.scoring import score_documents
from tests.conftest import TINY

PERIOD, WINDOW, LENGTH = 6, 24, 120


class Repetitions:
    """Documents that say the same few tokens again and again; what comes next stands one period back."""

    def __init__(self, n_documents: int, length: int, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.rows = np.tile(rng.integers(8, 40, (n_documents, PERIOD)), (1, -(-length // PERIOD)))[:, :length]
        self.lengths = np.full(n_documents, length)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> np.ndarray:
        return self.rows[index]


@pytest.fixture(scope="module")
def trained() -> Decoder:
    """A decoder that has learnt in windows of 24 tokens."""
    torch.manual_seed(0)
    decoder = Decoder(replace(TINY, initializer_range=0.1))
    decoder.initialize_weights()
    optimizer = torch.optim.AdamW(decoder.parameters(), lr=4e-3)
    for step in range(250):
        tokens = torch.from_numpy(Repetitions(16, WINDOW + 1, seed=step).rows)
        logits, _ = decoder.next_token_logits(tokens[:, :-1])
        loss = F.cross_entropy(logits[:, PERIOD:].flatten(0, 1), tokens[:, PERIOD + 1 :].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return decoder.eval()


def test_late_tokens_are_as_easy_as_early_ones_only_where_windows_slide(trained: Decoder) -> None:
    within, beyond = Repetitions(40, WINDOW, seed=1000), Repetitions(40, LENGTH, seed=1000)
    trained_loss = score_documents(trained, within, PERIOD).loss
    sliding = score_documents(trained, beyond, PERIOD, context=WINDOW).loss
    everything = score_documents(trained, beyond, PERIOD).loss
    # Nearly all of a long document is known from its first period on: it has to be the easier one.
    assert sliding < trained_loss
    assert sliding < 0.8 * everything
