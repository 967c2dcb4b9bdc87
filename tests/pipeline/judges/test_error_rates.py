import pytest

pytest.importorskip("jiwer")

from pipeline.judges.error_rates import error_rates, normalised, words_in_common  # noqa: E402


def test_digits_and_their_names_are_one() -> None:
    assert normalised("In 1,853, it's DONE!") == normalised("in one eight five three it's done")
    assert error_rates("three five", "3, 5.") == (0, 0)


def test_errors_are_counted_against_what_was_said() -> None:
    assert error_rates("one two three four", "one two tree") == (pytest.approx(2 / 4), pytest.approx(6 / 18))
    assert error_rates("one", "") == (1, 1)
    assert error_rates("one", "one and more")[0] == 2
    with pytest.raises(ValueError, match="Nothing was said"):
        error_rates("?", "one")


def test_words_in_common_stand_in_the_same_order() -> None:
    assert words_in_common("the cat sat down", "a cat sat up") == 2
    assert words_in_common("the cat", "") == 0
