import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks import train_step
from benchmarks.training.workload import RandomBatches, compose_workload
from lightning_modules.batch import Batch

SMALLEST = ("--preset", "tiny", "--device", "cpu", "--batch", "1", "--length", "32", "--steps", "2")


def test_the_command_prints_one_line_and_trains_as_transformers_does(capfd: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("transformers")
    train_step.main([*SMALLEST, "--peer", "transformers"])
    (line,) = capfd.readouterr().out.splitlines()
    assert_both_train_the_same(json.loads(line))


def test_packed_documents_train_as_transformers_does(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("transformers")
    train_step.main([*SMALLEST, "--peer", "transformers", "--documents", "12"])
    assert_both_train_the_same(json.loads(capsys.readouterr().out))


def assert_both_train_the_same(result: dict[str, Any]) -> None:
    assert result["ratio"] == pytest.approx(result["transformers"]["step_ms"] / result["step_ms"], abs=1e-3)
    assert result["tokens_per_second"] == pytest.approx(32_000 / result["step_ms"], rel=1e-3)
    assert result["losses"] == pytest.approx(result["transformers"]["losses"], abs=2e-4), "optimizers differ"
    assert result["losses"][0] != result["losses"][1]
    assert result["mtp"] == 0
    assert result["recompilations"] == 0


def test_alone_a_preset_keeps_its_prediction_modules(capsys: pytest.CaptureFixture[str]) -> None:
    train_step.main(SMALLEST)
    result = json.loads(capsys.readouterr().out)
    assert result["mtp"] == 1
    assert "ratio" not in result


def test_the_profile_is_a_table_of_parts_beside_their_floors(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train_step.main([*SMALLEST, "--profile", str(tmp_path / "profile.txt")])
    assert len(capsys.readouterr().out.splitlines()) == 1
    rows = [line.split() for line in (tmp_path / "profile.txt").read_text().splitlines()]
    milliseconds = {" ".join(row[:-3]): float(row[-3]) for row in rows if row and row[-1].endswith("%")}
    assert all(milliseconds[part] > 0 for part in ("attention", "grouped products", "other products", "optimizer"))


def test_no_ratio_where_the_losses_differ(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("transformers")
    from benchmarks.peers.transformers import TransformersPeer

    logits = TransformersPeer.logits

    def shifted(self: TransformersPeer, tokens: Tensor, batch: Batch) -> Tensor:
        return logits(self, tokens, batch) + 0.1 * torch.arange(self.workload.decoder.vocab_size)

    monkeypatch.setattr(TransformersPeer, "logits", shifted)
    with pytest.raises(SystemExit) as stopped:
        train_step.main([*SMALLEST, "--peer", "transformers"])
    printed = capsys.readouterr()
    assert stopped.value.code == 2
    assert printed.out == ""
    assert "the two do not train the same" in printed.err


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--peer", "transformers", "--mtp", "1"), "leave out --mtp"),
        (("--peer", "transformers", "--optimizer", "muon"), "Peers train by AdamW"),
        (("--ep", "2"), "start them with torchrun"),
        (("--length", "0"), "argument --length"),
        (("--documents", "-3"), "argument --documents"),
        (("--batch", "70000"), "trainer.batch_size is 70000"),
        (("--preset", "huge"), "invalid choice: 'huge'"),
    ],
)
def test_what_cannot_be_timed_is_refused_in_a_sentence(
    options: tuple[str, ...], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        train_step.main([*SMALLEST, *options])
    assert stopped.value.code == 2
    assert sentence in capsys.readouterr().err


def test_documents_are_packed_and_counted_by_their_own_lengths() -> None:
    workload = compose_workload(["model=tiny", "trainer.batch_size=2", "trainer.sequence_length=8"], 3)
    batch = RandomBatches(workload)[0]
    assert batch.document_ids[1].tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3]
    assert batch.positions[0].tolist() == [0, 1, 2, 0, 1, 2, 0, 1, 2, 0]
    assert workload.mean_context == (3 * 3 + 3 * 3 + 2 * 2) / 8


def test_ranks_and_steps_have_tokens_of_their_own() -> None:
    workload = compose_workload(["model=tiny", "trainer.max_steps=2"], None)
    batches = [RandomBatches(workload, rank, 2)[step] for step in range(2) for rank in range(2)]
    assert len({tuple(batch.tokens.flatten().tolist()) for batch in batches}) == 4
    assert torch.equal(batches[2].tokens, RandomBatches(workload, 0, 2)[1].tokens)
