from dataclasses import dataclass
from typing import Any

import pytest

from pipeline.configuration.settings import near_matches, read_settings


@dataclass(frozen=True)
class Example:
    n_layers: int
    rate: float
    name: str
    is_causal: bool
    top_k: int | None
    betas: tuple[float, float]
    seed: int = 3

    def __post_init__(self) -> None:
        if self.n_layers < 1:
            raise ValueError(f"model.n_layers is {self.n_layers}; it must be at least 1.")


VALUES: dict[str, Any] = {
    "n_layers": 2, "rate": 0.5, "name": "a", "is_causal": True, "top_k": None, "betas": [0.9, 0.95],
}  # fmt: skip


def test_values_become_fields_lists_tuples_and_defaults_stay() -> None:
    assert read_settings(Example, VALUES, "model") == Example(2, 0.5, "a", True, None, (0.9, 0.95), 3)
    assert read_settings(Example, VALUES | {"seed": 4, "top_k": 5}, "model").seed == 4


def test_a_whole_number_will_do_for_a_float() -> None:
    assert read_settings(Example, VALUES | {"rate": 1}, "model").rate == 1


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("n_layers", 2.0, "int"),
        ("n_layers", True, "int"),
        ("n_layers", None, "int"),
        ("n_layers", "2", "int"),
        ("rate", "0.5", "float"),
        ("rate", False, "float"),
        ("name", 1, "str"),
        ("is_causal", 1, "bool"),
        ("is_causal", "yes", "bool"),
        ("top_k", 1.5, r"int \| None"),
        ("betas", 0.9, "tuple"),
    ],
)
def test_a_value_of_another_type_is_named(name: str, value: object, expected: str) -> None:
    with pytest.raises(ValueError, match=rf"^model\.{name} is {value!r}; it takes a value of type {expected}\.$"):
        read_settings(Example, VALUES | {name: value}, "model")


def test_a_misspelt_setting_hints_at_the_one_that_is_missing() -> None:
    values = {("n_layer" if name == "n_layers" else name): value for name, value in VALUES.items()}
    with pytest.raises(ValueError, match=r"^model\.n_layer is not a setting; did you mean `n_layers`\?$"):
        read_settings(Example, values, "model")


def test_an_unknown_setting_hints_at_a_near_one_though_none_is_missing() -> None:
    with pytest.raises(ValueError, match=r"^model\.ratee is not a setting; did you mean `rate`\?$"):
        read_settings(Example, VALUES | {"ratee": 1.0}, "model")


def test_a_missing_setting_is_named_unless_it_has_a_default() -> None:
    values = {name: value for name, value in VALUES.items() if name != "rate"}
    with pytest.raises(ValueError, match=r"^model\.rate is not set; the files under conf/"):
        read_settings(Example, values, "model")


def test_what_the_dataclass_refuses_passes_through() -> None:
    with pytest.raises(ValueError, match="model.n_layers is 0; it must be at least 1."):
        read_settings(Example, VALUES | {"n_layers": 0}, "model")


def test_near_matches_or_all_there_are() -> None:
    assert near_matches("n_mel", ["n_mels", "n_fft"]) == "did you mean `n_mels`?"
    assert near_matches("zzz", ["n_mels", "n_fft"]) == "known are `n_mels`, `n_fft`."
