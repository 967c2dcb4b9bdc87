from dataclasses import replace

import pytest
import torch

from pipeline.checkpoints.quantisation import RoundingLog, retype
from pipeline.conversion.held_out import CannotRunError, assemble
from pipeline.conversion.logits import BOUNDS, check_logits
from pipeline.conversion.survey import survey

PLENTY = 2**30


def test_a_checkpoint_runs_as_the_decoder_it_came_from(build_decoder, source_of) -> None:
    for config in ({}, {"tie_word_embeddings": True}, {"num_expert_segments": 2, "q_lora_rank": None}):
        decoder = build_decoder(**config)
        tokens = torch.arange(40)[None]
        expected = decoder.next_token_logits(tokens)[0]
        assert torch.equal(assemble(source_of(decoder), PLENTY).next_token_logits(tokens)[0], expected)


def test_it_is_not_run_beyond_the_memory_that_is_allowed(build_decoder, source_of) -> None:
    source = source_of(build_decoder())
    with pytest.raises(CannotRunError, match=r"conversion\.max_run_gib allows 0\.0"):
        assemble(source, 1000)


@pytest.mark.parametrize(("dtype", "type_name"), [("bfloat16", "bfloat16"), ("fp8", "float8_e4m3fn")])
def test_rounded_weights_have_a_bound_and_others_none(build_decoder, source_of, dtype: str, type_name: str) -> None:
    source = source_of(build_decoder())
    facts = survey(source, replace(source, tensors=retype(source.tensors, dtype, RoundingLog())))
    logits = torch.randn(50, 40)
    near, far = logits + 1e-3 * torch.randn(50, 40), logits + torch.randn(50, 40)
    assert check_logits(logits, near, facts).status == "pass"
    check = check_logits(logits, far, facts)
    assert (check.status, check.numbers["bound"]) == ("fail", BOUNDS[type_name])
    assert check.numbers["divergence"] == pytest.approx(
        float((logits.softmax(-1) * (logits.log_softmax(-1) - far.log_softmax(-1))).sum(-1).mean()), rel=1e-4
    )
    same = survey(source, source)
    assert check_logits(logits, logits, same).status == "pass"
    assert check_logits(logits, near, same).status == "fail"
    assert check_logits(logits, torch.full_like(logits, float("nan")), facts).status == "fail"
