import math

import pytest

from pipeline.reporting.formatting import compact, duration, fixed, flatten, number, percent, plain, power_of_ten, short


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0008, "0.000800"),
        (7.1e-8, "7.1 × 10⁻⁸"),
        (0.2412, "0.241"),
        (0.9996, "1.00"),
        (-6.321, "−6.32"),
        (209.4, "209"),
        (25471.2, "25,471"),
        (0.0, "0"),
        (math.inf, "∞"),
        (math.nan, "–"),
        (None, "–"),
    ],
)
def test_numbers_keep_three_significant_digits(value, text):
    assert number(value) == text


def test_short_drops_only_trailing_zeros_after_the_point():
    assert (short(0.5), short(2.0), short(100.0), short(33.5, 5)) == ("0.5", "2", "100", "33.5")


def test_percentages_keep_two_digits_and_have_a_unit_only_beside_a_number():
    assert [percent(share) for share in (0.00105, 1.0, math.nan)] == ["0.10 %", "100 %", "–"]


def test_fixed_decimals_align_a_column():
    assert [fixed(value, 2) for value in (-71.5, -0.02, None)] == ["−71.50", "−0.02", "–"]


def test_powers_of_ten_are_written_in_full_only_near_one():
    assert [power_of_ten(10.0**e) for e in (-7, -1, 0, 4)] == ["10⁻⁷", "0.1", "1", "10,000"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(4.23, "4.2 s"), (171.2, "2 min 51 s"), (3719, "1 h 02 min"), (None, "–"), (3599.7, "60 min 00 s")],
)
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_parameter_counts_are_scaled():
    assert [compact(n) for n in (2_873_472, 671e9, 850)] == ["2.87 M", "671 B", "850"]


def test_configuration_values_read_like_yaml():
    assert [plain(v) for v in (None, True, 1e-4, [0.9, None])] == ["null", "true", "0.0001", "[0.9, null]"]


def test_credentials_in_addresses_are_struck_out():
    assert plain("https://ann:secret@tracking.example/mlflow") == "https://tracking.example/mlflow"


def test_flatten_reaches_every_leaf():
    tree = {"a": {"b": 1, "c": {"d": False}}, "e": [], "f": {}}
    assert list(flatten(tree)) == [("a.b", "1"), ("a.c.d", "false"), ("e", "[]"), ("f", "{}")]
