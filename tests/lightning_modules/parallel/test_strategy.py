"""Four ranks in every layout do what a single process does. One launch runs all of it, one layout after another."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from tests.lightning_modules.parallel.layout_trainings import CASES, LONG, N_RANKS, REFERENCES, train
from tests.ranks import run_on_ranks


def train_all_cases(rank: int, folder: Path) -> None:
    for name, case in CASES.items():
        result = train(case, case.layout, folder / name)
        if rank == 0:
            torch.save(result, folder / f"{name}.pt")
    dist.barrier()


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("layouts")
    run_on_ranks(train_all_cases, N_RANKS, folder)
    found = {name: torch.load(folder / f"{name}.pt", weights_only=True) for name in CASES}
    for reference, name in {reference: name for name, reference in REFERENCES.items()}.items():
        found[f"{reference}, one process"] = train(CASES[name], None, folder / "one" / reference)
    return found


@pytest.mark.parametrize("name", CASES)
def test_ranks_follow_one_process(results: dict[str, dict[str, Any]], name: str) -> None:
    ranks, one = results[name], results[f"{REFERENCES[name]}, one process"]
    assert list(ranks["losses"]) == list(range(CASES[name].max_steps))
    for step, loss in one["losses"].items():
        assert ranks["losses"][step] == pytest.approx(loss, abs=1e-6), step
    for tensor in ranks["weights"]:
        if "bias" in tensor or "expert_loads" in tensor:
            assert torch.equal(ranks["weights"][tensor], one["weights"][tensor]), tensor
        torch.testing.assert_close(ranks["weights"][tensor], one["weights"][tensor], rtol=0, atol=2e-4, msg=tensor)


@pytest.mark.parametrize("name", CASES)
def test_metrics_are_those_of_the_whole_batch(results: dict[str, dict[str, Any]], name: str) -> None:
    ranks, one = results[name], results[f"{REFERENCES[name]}, one process"]
    assert ranks["logged"].keys() == one["logged"].keys()
    for key, value in one["logged"].items():
        assert ranks["logged"][key] == pytest.approx(value, rel=1e-5, abs=2e-6), key
    assert ranks["validated"]["val/loss"] == pytest.approx(one["validated"]["val/loss"], abs=2e-6)


def test_the_training_exercises_what_it_is_meant_to(results: dict[str, dict[str, Any]]) -> None:
    one = results["plain, one process"]
    norms = [value for (name, _), value in one["logged"].items() if name == "train/gradient_norm"]
    assert min(norms) > 0.5, "clipping has to bite"
    biases = [tensor for name, tensor in one["weights"].items() if "correction_bias" in name]
    assert all(float(bias.abs().max()) > 0.02 for bias in biases)
    assert {"train/mtp_loss_1", "train/balance_loss", "val/mtp_loss_1"} <= {name for name, _ in one["logged"]}
    assert one["losses"][LONG - 1] < 0.97 * one["losses"][0]
