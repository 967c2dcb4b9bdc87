from dataclasses import replace

import pytest

from pipeline.conversion.check import Check
from pipeline.conversion.completeness import check_completeness
from pipeline.conversion.shapes import check_shapes
from pipeline.conversion.verdict import conclude

MISSING = tuple(f"model.layers.{layer}.self_attn.o_proj.weight" for layer in range(3))


def test_the_worst_check_decides_and_what_was_missing_explains_it() -> None:
    checks = [
        Check("completeness", "warn", "output projections missing in layers 0-2: they are random"),
        Check("shapes", "pass", "all there"),
        Check("held-out loss", "fail", "4.95 nats a token, no better than the bigram's 4.40"),
    ]
    verdict = conclude(checks, MISSING)
    assert verdict.status == "fail"
    assert verdict.sentence == (
        "output projections missing in layers 0-2; held-out loss: 4.95 nats a token, no better than the bigram's 4.40"
    )
    assert verdict.checks == tuple(checks)
    assert conclude(checks[:2], MISSING).sentence == "completeness: " + checks[0].sentence


def test_what_was_skipped_is_said_even_where_all_else_passes() -> None:
    verdict = conclude([Check("shapes", "pass", ""), Check("sound", "skipped", "no codec")], ())
    assert (verdict.status, verdict.sentence) == ("pass", "1 check passed; not run: sound")


def test_completeness_tells_what_is_random_and_what_was_repaired(build_decoder, source_of) -> None:
    source = source_of(build_decoder())
    assert check_completeness(source).status == "pass"
    repaired = check_completeness(replace(source, renamed=(("a.out_proj", "a.o_proj"),), initialised=("loads",)))
    assert (repaired.status, repaired.numbers["renamed"], repaired.numbers["initialised"]) == ("pass", 1, 1)
    lacking = replace(source, missing=MISSING)
    missing = check_completeness(lacking, MISSING)
    assert (missing.status, missing.sentence) == ("warn", "output projections missing in layers 0-2: they are random")
    for allowed in ((), ("*",), (*MISSING[:2], "*.o_proj.weight")):
        globbed = check_completeness(lacking, allowed)
        assert globbed.status == "fail"
        assert globbed.sentence.endswith("they are random, and allow_missing does not name them one by one")
    assert "in layer 2: " in globbed.sentence
    noted = check_completeness(replace(source, notes=("There is no module.",)))
    assert (noted.status, noted.sentence) == ("pass", "no weight is missing; There is no module")
    assert check_completeness(replace(source, doubts=("Two exports.",))).status == "warn"
    unexpected = check_completeness(replace(source, unexpected=("model.extra.weight",)))
    assert unexpected.status == "warn"
    assert "model.extra.weight" in unexpected.sentence


@pytest.mark.parametrize(("drop", "status"), [((), "fail"), (("mtp",), "pass")])
def test_a_tensor_may_be_absent_only_if_it_was_dropped(build_decoder, source_of, drop, status: str) -> None:
    source, without = source_of(build_decoder()), source_of(build_decoder(num_nextn_predict_layers=0))
    check = check_shapes(source, without, drop)
    assert check.status == status
    assert (check.numbers["absent"] > 0) == (status == "fail")


def test_shapes_have_to_be_the_source_s(build_decoder, source_of) -> None:
    decoder = build_decoder()
    name = "model.layers.0.self_attn.o_proj.weight"
    source = source_of(decoder)
    check = check_shapes(source, source_of(decoder, {name: source.tensors[name].read().T.contiguous()}), ())
    assert (check.status, check.sentence) == ("fail", f"the target has in another shape {name} [32, 24] → [24, 32]")
