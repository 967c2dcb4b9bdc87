from pathlib import Path

import pytest

from benchmarks.ordering import Rung, accuracy, ladder, main, table
from pipeline.plumbing.files import write_csv, write_json
from pipeline.statistics.interval import Interval

SIGNALS = ("codec", "generated", "unigram_random", "tone", "noise")


def write_evaluation(outputs: Path, distance: float, loss: float, n_right: int) -> Path:
    folder = outputs / "evaluate"
    folder.mkdir(parents=True)
    distances = {"codec": 10.0, "generated": distance, "unigram_random": 900.0, "tone": 2e4, "noise": 4e4}
    rows = [{"signal": name, "fd": fd, "fd_low": 0.9 * fd, "fd_high": 1.1 * fd} for name, fd in distances.items()]
    write_csv(folder / "comparison.csv", rows)
    write_csv(
        folder / "minimal_pairs.csv",
        [
            {"task": "reversed", "document": i, "nats_true": 1.0, "nats_false": 2.0 if i < n_right else 0.5}
            for i in range(40)
        ],
    )
    judged = [
        {"judge": "whisper", "measure": measure, "signal": signal, "value": 0.0, "low": "nan", "high": "nan"}
        for measure in ("confidence", "wer")
        for signal in SIGNALS
        if (measure, signal) != ("wer", "generated")
    ]
    write_csv(folder / "judge_bodies.csv", judged)
    bounds = {"eval/loss": loss, "eval/loss/low": loss - 0.1, "eval/loss/high": loss + 0.1}
    write_json(folder / "metrics.json", {**bounds, "eval/loss_unigram": 5.2})
    return outputs


def test_what_a_measure_puts_above_the_row_before_is_bold(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    young = write_evaluation(tmp_path / "young", distance=950.0, loss=6.0, n_right=20)
    old = write_evaluation(tmp_path / "old", distance=50.0, loss=3.0, n_right=38)
    main([str(young), str(old)])
    rows = {cells[0]: cells[1:] for line in capsys.readouterr().out.splitlines() if (cells := line[2:-2].split(" | "))}
    assert list(rows) == [
        "", "---", "noise", "tone", "silence", "shuffled", "random tokens", "young", "old", "codec"
    ]  # fmt: skip
    assert rows[""] == ["fd", "loss", "pairs", "whisper confidence"]
    assert rows["tone"] == ["**20,000 (18,000–22,000)**", "–", "–", "0.00"]
    assert rows["young"] == ["950 (855–1,045)", "6.00 (5.90–6.10)", "0.50 (0.35–0.65)", "0.00"]
    assert rows["old"] == ["**50 (45–55)**", "**3.00 (2.90–3.10)**", "**0.95 (0.83–0.99)**", "0.00"]
    assert rows["random tokens"] == ["900 (810–990)", "5.20", "0.50", "0.00"]
    assert [rung.name for rung in ladder([old / "evaluate"])][-2:] == ["old", "codec"]


def test_a_row_without_bounds_orders_nothing() -> None:
    unknown, known = Interval.unknown(5.0), Interval(1.0, 0.9, 1.1)
    rows = table([Rung("a", {"fd": unknown}), Rung("b", {"fd": known}), Rung("c", {"fd": known})]).splitlines()
    assert rows[2:] == ["| a | 5 |", "| b | 1 (1–1) |", "| c | 1 (1–1) |"]


def test_several_pairs_of_one_utterance_tell_less_than_as_many_utterances() -> None:
    def pair(document: int, right: bool) -> dict[str, str]:
        row = {"task": "reversed", "document": str(document), "nats_true": "1"}
        return row | {"nats_false": "2" if right else "0"}

    of_many = accuracy([pair(i, i % 2 == 0) for i in range(40)])
    of_few = accuracy([pair(i // 4, i // 4 % 2 == 0) for i in range(40)])
    assert of_few.half_width > 1.5 * of_many.half_width


def test_who_is_not_evaluated_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([str(tmp_path / "nowhere")])
    assert f"python -m pipeline.evaluate paths.outputs={tmp_path / 'nowhere'}" in capsys.readouterr().err
