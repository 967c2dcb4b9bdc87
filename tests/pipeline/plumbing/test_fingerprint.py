from typing import Any

import pytest

from pipeline.plumbing.fingerprint import fingerprint


def test_a_fingerprint_is_of_values_and_not_of_their_order() -> None:
    assert fingerprint({"a": 1, "b": {"c": 2, "d": 3}}) == fingerprint({"b": {"d": 3, "c": 2}, "a": 1})


@pytest.mark.parametrize("other", [{"a": [2, 1]}, {"a": [1, 2], "b": None}, {"a": [1, 2.5]}, {"a": "[1, 2]"}])
def test_different_values_have_different_fingerprints(other: dict[str, Any]) -> None:
    assert fingerprint({"a": [1, 2]}) != fingerprint(other)
