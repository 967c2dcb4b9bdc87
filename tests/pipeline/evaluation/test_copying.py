import numpy as np
import torch

from pipeline.evaluation.copying import coarse, copying_metrics, documents
from pipeline.tokens.vocabulary import Vocabulary


def test_only_the_coarsest_codes_are_looked_at(make_split, vocabulary: Vocabulary) -> None:
    codes = np.array([[3, 1], [3, 9], [4, 1], [3, 0]])
    assert coarse(torch.from_numpy(codes)).tolist() == [3, 4, 3]
    assert [document.tolist() for document in documents(make_split("train", [codes, codes[:2]], vocabulary))] == [
        [3, 4, 3],
        [3],
    ]


def test_clips_are_copied_that_share_more_than_any_held_out_utterance() -> None:
    metrics = copying_metrics([3, 9, 10, 40], [2, 9, 4])
    assert metrics["copying/copied"] == 0.5
    assert (metrics["copying/longest_match"], metrics["copying/longest_match_reference"]) == (40, 9)
    assert (metrics["copying/median_match"], metrics["copying/median_match_reference"]) == (9.5, 4)
