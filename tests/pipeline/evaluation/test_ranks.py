"""Two processes that evaluate together find what one finds."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch

from lightning_modules.model.sampling_configuration import SamplingConfig
from pipeline.checkpoints.loading import load_decoder
from pipeline.evaluation.configuration import JudgingConfig
from pipeline.evaluation.hearing import call_in_panel, hear
from pipeline.evaluation.ranks import joined_ranks, own_share, share, sum_over_ranks
from pipeline.evaluation.scoring import score_documents, token_nats
from pipeline.evaluation.specimens import Exhibit
from pipeline.evaluation.synthesis import generate_codes
from pipeline.judges.judge import Judgement, Measure, Specimen
from pipeline.judges.registry import Options, Panel
from pipeline.tokens.dataset import TokenDataset
from tests.ranks import run_on_ranks

FRAMES = [9, 1, 30, 4, 17, 6, 12]


class Counter:
    """A judge that counts samples, and the sounds that it was given."""

    measures: Mapping[str, Measure] = {"length": Measure("Length", "higher", "samples")}
    origin = "nobody"
    compares = False

    def __init__(self) -> None:
        self.n_given = 0

    def judge(self, specimen: Specimen) -> Judgement:
        self.n_given += 1
        return Judgement({"length": float(len(specimen.audio))})


def judge_together(rank: int, folder: Path) -> None:
    with joined_ranks(), pytest.MonkeyPatch.context() as patch:
        one_came, here = Panel({}, {"counter": "not installed"}), Panel({"counter": Counter()})
        patch.setattr("pipeline.evaluation.hearing.call_in_installed", lambda _: [here, one_came][rank])
        agreed = call_in_panel(JudgingConfig("auto", 2, None), Options().device)

        counter = Counter()
        given = [Exhibit("codec", n, None, Specimen(np.zeros(n, dtype=np.float32))) for n in range(5)]
        _, judged = hear(Panel({"counter": counter}), given)
        found = {
            "agreed": [list(agreed.judges), dict(agreed.skipped)],
            "judged": [[exhibit.number, judgement.figures["length"]] for _, exhibit, judgement in judged],
            "n_given": counter.n_given,
        }
        (folder / f"judged_{rank}.json").write_text(json.dumps(found))


def test_two_ranks_share_the_sounds_among_judges_whom_both_have(tmp_path: Path) -> None:
    run_on_ranks(judge_together, 2, tmp_path)
    found = [json.loads((tmp_path / f"judged_{rank}.json").read_text()) for rank in range(2)]
    assert [each["n_given"] for each in found] == [3, 2]
    for each in found:
        assert each["agreed"] == [[], {"counter": "not installed"}]
        assert each["judged"] == [[n, n] for n in range(5)]


def evaluate_together(rank: int, folder: Path) -> None:
    decoder, documents = load_decoder(folder / "trained.ckpt"), TokenDataset.open(folder / "test")
    with joined_ranks() as is_first:
        score = score_documents(decoder, documents, 2, tokens_per_batch=40)
        nats = token_nats(decoder, documents, tokens_per_batch=40)
        prompts = [documents.vocabulary.tokens_to_codes(torch.from_numpy(documents[i]))[:1] for i in range(5)]
        spoken = generate_codes(decoder, documents.vocabulary, prompts, 8, SamplingConfig(), 3, 4)
        squares = share(lambda own: [n * n for n in own], range(5))
        found = {
            "nats": score.nats.tolist(),
            "tokens": [document.tolist() for document in nats],
            "choices": [counts.together.tolist() for counts in score.choices.values()],
            "spoken": [codes.tolist() for codes in spoken],
            "squares": squares,
        }
        path = folder / f"found_{'first' if is_first else 'other'}.json"
        path.write_text(json.dumps(found))


def test_two_ranks_find_what_one_process_finds(build_decoder, random_split, tmp_path: Path) -> None:
    decoder, documents = build_decoder(), random_split("test", FRAMES)
    state = {f"decoder.{name}": tensor for name, tensor in decoder.state_dict().items()}
    values = {"hyper_parameters": {"decoder": asdict(decoder.config)}, "global_step": 1}
    torch.save({"state_dict": state, **values}, tmp_path / "trained.ckpt")
    run_on_ranks(evaluate_together, 2, tmp_path)

    score = score_documents(decoder, documents, 2, tokens_per_batch=40)
    prompts = [documents.vocabulary.tokens_to_codes(torch.from_numpy(documents[i]))[:1] for i in range(5)]
    spoken = generate_codes(decoder, documents.vocabulary, prompts, 8, SamplingConfig(), 3, 4)
    for name in ("first", "other"):
        found = json.loads((tmp_path / f"found_{name}.json").read_text())
        np.testing.assert_allclose(found["nats"], score.nats, atol=1e-4)
        for theirs, ours in zip(found["tokens"], token_nats(decoder, documents), strict=True):
            assert theirs == pytest.approx(ours.tolist(), abs=1e-4)
        assert found["choices"] == [counts.together.tolist() for counts in score.choices.values()]
        assert found["spoken"] == [codes.tolist() for codes in spoken]
        assert found["squares"] == [0, 1, 4, 9, 16]


def test_one_process_has_all_the_work() -> None:
    with joined_ranks() as is_first:
        assert is_first
        assert own_share([1, 2, 3]) == [1, 2, 3]
        assert share(lambda own: [str(item) for item in own], [1, 2]) == ["1", "2"]
        total = torch.ones(2)
        sum_over_ranks(total)
        assert total.tolist() == [1, 1]
