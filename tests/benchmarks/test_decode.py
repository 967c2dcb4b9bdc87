import json
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks import decode

SMALLEST = ("--preset", "tiny", "--device", "cpu", "--batch", "3", "--context", "40", "--steps", "4")
PEER = ("--peer", "transformers")


def test_the_command_prints_one_line_and_says_what_transformers_does(capfd: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("transformers")
    decode.main([*SMALLEST, *PEER])
    (line,) = capfd.readouterr().out.splitlines()
    result: dict[str, Any] = json.loads(line)
    assert result["ratio"] == pytest.approx(result["transformers"]["step_ms"] / result["step_ms"], rel=1e-2)
    assert result["tokens_per_second"] == pytest.approx(3000 / result["step_ms"], rel=1e-2)
    assert result["agreement"]["equal"] == 1
    assert result["share_of_bandwidth"] > 0


@pytest.mark.parametrize("options", [("--fp8-cache",), ("--precision", "bf16"), ("--speculative", "2"), ("--prefill",)])
def test_other_ways_of_decoding_agree_too(options: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("transformers")
    decode.main([*SMALLEST, *PEER, *options])
    result = json.loads(capsys.readouterr().out)
    assert result["agreement"]["mean_regret"] < 0.1
    assert result["benchmark"] == ("prefill" if "--prefill" in options else "decode")


def test_weights_in_fp8_are_held_against_the_same_in_bf16(capsys: pytest.CaptureFixture[str]) -> None:
    decode.main([*SMALLEST, "--preset", "small", "--precision", "bf16", "--weights", "fp8"])
    result = json.loads(capsys.readouterr().out)
    assert result["ratio"] == pytest.approx(result["bf16_weights"]["step_ms"] / result["step_ms"], rel=1e-2)
    assert result["weights"] == "fp8"


def test_no_ratio_where_the_peer_would_say_something_else(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("transformers")
    from benchmarks.peers.transformers_decoding import TransformersDecoding

    step = TransformersDecoding.step

    def forgetful(self: TransformersDecoding, said: Tensor) -> Tensor:
        return step(self, torch.zeros_like(said))

    monkeypatch.setattr(TransformersDecoding, "step", forgetful)
    with pytest.raises(SystemExit) as stopped:
        decode.main([*SMALLEST, *PEER])
    printed = capsys.readouterr()
    assert stopped.value.code == 2
    assert printed.out == ""
    assert "the two do not compute the same" in printed.err


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--context", "0"), "argument --context"),
        (("--context", "1"), "context is 1"),
        (("--preset", "huge"), "invalid choice: 'huge'"),
        (("--profile",), "leave out --profile"),
        (("--speculative", "--prefill"), "leave out --speculative"),
        (("--weights", "fp8", *PEER), "leave out --peer"),
        (("--weights", "fp8"), "add --precision bf16"),
        (("--weights", "fp8", "--precision", "bf16"), "tiny do not end where blocks"),
    ],
)
def test_what_cannot_be_timed_is_refused_in_a_sentence(
    options: tuple[str, ...], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        decode.main([*SMALLEST, *options])
    assert stopped.value.code == 2
    assert sentence in capsys.readouterr().err
