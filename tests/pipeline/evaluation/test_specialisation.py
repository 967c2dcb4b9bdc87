import numpy as np
import pytest
import torch
from sklearn.metrics import mutual_info_score

from lightning_modules.model.router import Routing
from pipeline.evaluation.routing_counts import RoutingCounts
from pipeline.evaluation.specialisation import (
    association,
    pair_rows,
    preference_rows,
    speaker_association,
)


def routing(indices: torch.Tensor, n_experts: int) -> Routing:
    return Routing(indices, torch.ones(indices.shape), torch.zeros(len(indices), n_experts))


def test_association_is_mutual_information_by_the_groups_entropy() -> None:
    rng = np.random.default_rng(0)
    groups = rng.integers(0, 3, 5000)
    experts = (groups + rng.integers(0, 3, 5000) * (rng.random(5000) < 0.5)) % 4
    table = np.zeros((3, 4))
    np.add.at(table, (groups, experts), 1)
    shares = table.sum(1) / table.sum()
    expected = mutual_info_score(groups, experts) / -(shares * np.log(shares)).sum()
    assert association(torch.from_numpy(table)) == pytest.approx(expected, rel=1e-9)
    assert association(torch.eye(4)) == pytest.approx(1)
    assert association(torch.ones(1, 4)) == 0


@pytest.mark.parametrize("matters", [False, True])
def test_speakers_tell_only_where_they_matter(matters: bool) -> None:
    """Documents differ in their experts by themselves: that alone must not look like speakers."""
    rng = np.random.default_rng(1)
    speakers = [f"speaker {number % 4}" for number in range(40)]
    counts = RoutingCounts(1, 40, 8)
    for document in range(40):
        shares = rng.dirichlet(np.full(8, 0.5))
        if matters:
            shares = 0.5 * shares + 0.5 * np.eye(8)[document % 4]
        counts.by_document[document] = torch.from_numpy(rng.multinomial(500, shares).astype(float))
    found = speaker_association(counts, speakers)
    assert (found.share > found.chance) == matters


def test_preferences_are_relative_to_what_all_tokens_choose() -> None:
    rows = preference_rows(2, "codebook", ["0", "1"], torch.tensor([[30.0, 10.0], [10.0, 30.0]]))
    assert [(row["group"], row["expert"], row["preference"]) for row in rows] == [
        ("0", 0, 1.5), ("0", 1, 0.5), ("1", 0, 0.5), ("1", 1, 1.5)
    ]  # fmt: skip
    # An expert that everyone chooses often is no preference of anyone's.
    uneven = preference_rows(2, "speaker", ["a", "b"], torch.tensor([[90.0, 10.0], [9.0, 1.0]]))
    assert [row["preference"] for row in uneven] == pytest.approx([1.0] * 4)


def test_the_strongest_pairs_come_first_and_unused_experts_last() -> None:
    counts = RoutingCounts(1, 1, 5)
    chosen = torch.tensor([[0, 1]] * 30 + [[2, 3]] * 20 + [[0, 2]] * 5)
    zeros = torch.zeros(len(chosen), dtype=torch.long)
    counts.add(routing(chosen, 5), zeros, zeros, torch.ones(len(chosen), dtype=torch.bool))
    rows = pair_rows(1, counts)
    assert len(rows) == 10
    assert {(row["expert"], row["other"]) for row in rows[:2]} == {(0, 1), (2, 3)}
    assert rows[-1]["lift"] == 0
    assert len(pair_rows(1, counts, n_at_most=3)) == 3
