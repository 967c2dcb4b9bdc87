import math

import pytest

from pipeline.conversion.survey import TensorFacts
from pipeline.conversion.values import check_differences, check_dtypes, check_finite

PROJECTION, BIAS, NORM = (
    "model.layers.1.self_attn.o_proj.weight",
    "model.layers.1.mlp.gate.e_score_correction_bias",
    "model.norm.weight",
)


def fact(dtype: str = "bfloat16", source: str = "float32", error: float = 0.0, n_nonfinite: int = 0) -> TensorFacts:
    return TensorFacts((64, 64), dtype, source, n_nonfinite, -1.0, 1.0, 0.5, error, 2.0)


@pytest.mark.parametrize(
    ("asked", "types"),
    [
        ("keep", {PROJECTION: "float32", BIAS: "float32", NORM: "float32"}),
        ("float32", {PROJECTION: "float32", BIAS: "float32", NORM: "float32"}),
        ("bfloat16", {PROJECTION: "bfloat16", BIAS: "float32", NORM: "bfloat16"}),
        ("fp8", {PROJECTION: "float8_e4m3fn", BIAS: "float32", NORM: "bfloat16"}),
    ],
)
def test_types_are_those_asked_for(asked: str, types: dict[str, str]) -> None:
    facts = {name: fact(dtype) for name, dtype in types.items()}
    assert check_dtypes(facts, asked).status == "pass"
    wrong = check_dtypes(facts | {BIAS: fact("bfloat16")}, asked)
    assert (wrong.status, wrong.numbers["bfloat16"]) == ("fail", 1 + sum(d == "bfloat16" for d in types.values()))
    assert f"{BIAS} (bfloat16 for float32)" in wrong.sentence


def test_one_number_that_is_none_fails() -> None:
    assert check_finite({NORM: fact()}).status == "pass"
    check = check_finite({NORM: fact(), PROJECTION: fact(n_nonfinite=2)})
    assert (check.status, check.sentence) == ("fail", f"2 numbers are NaN or infinite, in {PROJECTION}")


@pytest.mark.parametrize(
    ("dtype", "source", "error", "status"),
    [
        ("float32", "float32", 0.0, "pass"),
        ("float32", "float32", 1e-9, "fail"),
        ("float32", "bfloat16", 1e-9, "fail"),
        ("bfloat16", "bfloat16", 1e-9, "fail"),
        ("bfloat16", "float32", 0.0038, "pass"),
        ("bfloat16", "float32", 0.0040, "fail"),
        ("float8_e4m3fn", "bfloat16", 0.062, "pass"),
        ("float8_e4m3fn", "bfloat16", 0.064, "fail"),
        ("float8_e4m3fn", "float8_e4m3fn", 0.01, "fail"),
        ("bfloat16", "float8_e4m3fn", 0.0038, "pass"),
        ("float32", "float8_e4m3fn", 1e-9, "fail"),
        ("bfloat16", "float32", math.nan, "fail"),
    ],
)
def test_numbers_move_by_no_more_than_rounding(dtype: str, source: str, error: float, status: str) -> None:
    assert check_differences({NORM: fact(error=0.0), PROJECTION: fact(dtype, source, error)}).status == status
