"""Mixtures: every corpus has its share of the tokens wherever one looks, each token once an epoch of its corpus."""

from typing import Any

import numpy as np
import pytest
import torch

from lightning_modules import mixture as mixture_module
from lightning_modules.data_module import SpeechTokens
from lightning_modules.documents import CappedDocuments
from lightning_modules.mixture import MixedWindows, Mixture, apportioned
from lightning_modules.packing import PackedDocuments
from tests.lightning_modules.documents import numbered_documents
from tests.lightning_modules.fake_trainer import fake_trainer

LENGTH, LOOKAHEAD, SEED = 16, 2, 3
# Of the second corpus no two documents share a window, which leaves three eighths of each empty.
SMALL, HALF_EMPTY, LARGE = [5, 7, 16, 4, 9, 3], [10] * 40, [16, 12, 8, 4] * 500


def mixture(weights: dict[str, float]) -> Mixture:
    lengths = {"small": SMALL, "half empty": HALF_EMPTY, "large": LARGE}
    return Mixture({name: numbered_documents(lengths[name]) for name in weights}, weights)


def mixed(weights: dict[str, float]) -> MixedWindows:
    return MixedWindows(mixture(weights), LENGTH, LOOKAHEAD, SEED)


WEIGHTS = {"small": 1.0, "half empty": 2.0, "large": 5.0}


def n_inputs(windows: PackedDocuments, stretch: range) -> int:
    return sum(int((windows[i].document_ids[:LENGTH] >= 0).sum()) for i in stretch)


@pytest.mark.parametrize("first", [0, 977, mixture_module.CYCLE - 400])
def test_weights_are_shares_of_tokens_wherever_one_looks(first: int) -> None:
    windows, n_windows = mixed(WEIGHTS), 800
    before, after = windows.windows_before(first), windows.windows_before(first + n_windows)
    assert after.sum() - before.sum() == n_windows
    stretches = [range(begin, end) for begin, end in zip(before.tolist(), after.tolist(), strict=True)]
    tokens = [n_inputs(one, stretch) for one, stretch in zip(windows.corpora.values(), stretches, strict=True)]
    assert np.array(tokens) / sum(tokens) == pytest.approx([1 / 8, 2 / 8, 5 / 8], abs=0.01)


def test_an_optimizer_step_is_a_sample_of_the_whole() -> None:
    windows = mixed(WEIGHTS)
    counts = np.array([windows.windows_before(place) for place in range(0, 3200, 32)])
    of_steps = np.diff(counts, axis=0)
    assert np.abs(of_steps - of_steps.mean(axis=0)).max() < 3


def test_every_corpus_goes_through_its_own_epochs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mixture_module, "CYCLE", 64)
    windows = mixed({"small": 1.0, "large": 2.0})
    n_windows = 1000
    _, large = windows.windows_before(n_windows).tolist()
    n_small = n_windows - large
    assert n_small > 20 * len(windows.corpora["small"])
    assert large < len(windows.corpora["large"])
    mixed_order = [windows[i].tokens.tolist() for i in range(n_windows)]
    alone = [
        [packed[i].tokens.tolist() for i in range(n)]
        for packed, n in zip(windows.corpora.values(), (n_small, large), strict=True)
    ]
    assert sorted(mixed_order) == sorted(alone[0] + alone[1])


def test_a_window_is_a_function_of_its_number_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mixture_module, "CYCLE", 64)
    windows = mixed(WEIGHTS)
    in_order = [windows[i] for i in range(200)]
    for index in (199, 0, 63, 64, 128, 127, 5):
        for ours, theirs in zip(mixed(WEIGHTS)[index][:4], in_order[index][:4], strict=True):
            assert torch.equal(ours, theirs)
    for first, n_windows in ((0, 1), (60, 9), (100, 100)):
        expected = torch.stack([in_order[i].n_targets for i in range(first, first + n_windows)]).mean(dim=0)
        torch.testing.assert_close(windows.mean_targets(first, n_windows), expected)


def step_of(
    rank: int, world_size: int, batch_size: int, accumulate: int, step: int, state: dict[str, Any]
) -> list[Any]:
    """The windows that a rank reads in one optimizer step, micro-batch after micro-batch."""
    data = SpeechTokens(
        mixture(WEIGHTS), {"small": numbered_documents(SMALL)}, LENGTH, LOOKAHEAD, batch_size, 999, SEED
    )
    if state:
        data.load_state_dict(state)
    data.trainer = fake_trainer(rank, world_size, accumulate, step)
    read = iter(data.train_dataloader())
    micro_batches = [next(read) for _ in range(accumulate)]
    data.trainer.global_step = step + 1  # type: ignore[misc]
    state.update(data.state_dict())
    return [row for batch in micro_batches for row in batch.tokens.tolist()]


@pytest.mark.parametrize("at", [1, 7, 40])
def test_a_resumed_step_reads_the_same_on_any_number_of_ranks(at: int) -> None:
    windows = mixed(WEIGHTS)
    expected = sorted(windows[i].tokens.tolist() for i in range(4 * at, 4 * at + 4))
    position = {"windows": 4 * at, "sequence_length": LENGTH, "packing": windows.packing}
    for world_size, batch_size, accumulate in ((1, 4, 1), (1, 2, 2), (2, 1, 2), (2, 2, 1), (4, 1, 1)):
        states = [dict(position) for _ in range(world_size)]
        read = [step_of(rank, world_size, batch_size, accumulate, at, states[rank]) for rank in range(world_size)]
        assert sorted(row for rows in read for row in rows) == expected
        assert all(state["windows"] == 4 * at + 4 for state in states)


def test_a_position_in_another_mixture_is_refused() -> None:
    state = {"windows": 4, "sequence_length": LENGTH, "packing": mixed(WEIGHTS | {"large": 4.0}).packing}
    with pytest.raises(ValueError, match="of another mixture"):
        step_of(0, 1, 1, 1, 0, state)


def test_equally_large_corpora_are_not_ordered_alike() -> None:
    same = Mixture({name: numbered_documents(LARGE) for name in "ab"}, {"a": 1.0, "b": 1.0})
    first, second = MixedWindows(same, LENGTH, LOOKAHEAD, SEED).corpora.values()
    assert any(first[i].tokens.tolist() != second[i].tokens.tolist() for i in range(5))


def test_apportioned_numbers_add_up_and_leave_nobody_out() -> None:
    assert apportioned(np.array([1.0, 1.0, 1.0]), 100).tolist() == [34, 33, 33]
    numbers = apportioned(np.array([1e-9, 0.3, 0.7]), 1000)
    assert numbers.sum() == 1000
    assert numbers[0] == 1
    assert numbers[1:] == pytest.approx([300, 700], abs=1)


def test_of_capped_documents_only_the_beginning_is_read() -> None:
    documents = numbered_documents([3, 40, 8])
    capped = CappedDocuments(documents, 8)
    assert capped.lengths.tolist() == [3, 8, 8]
    assert capped.n_capped == 1
    assert capped[1].tolist() == documents[1][:8].tolist()
    windows = PackedDocuments(capped, LENGTH, LOOKAHEAD, SEED)
    seen = [token for i in range(len(windows)) for token in windows[i].tokens[windows[i].document_ids >= 0].tolist()]
    assert sorted(seen) == [*range(11), *range(43, 51)]


def test_a_mixture_weighs_each_of_its_corpora() -> None:
    with pytest.raises(ValueError, match="weigh each"):
        Mixture({"a": numbered_documents([3])}, {"a": 1.0, "b": 1.0})
