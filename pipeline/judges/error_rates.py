"""Word and character error rates between what was said and what was heard."""

import re

import jiwer

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def error_rates(said: str, heard: str) -> tuple[float, float]:
    """The word and the character error rate; above 1 where more was heard than said.

    Raises:
        ValueError: nothing was said.
    """
    reference, hypothesis = normalised(said), normalised(heard)
    if not reference:
        raise ValueError("Nothing was said that could have been heard.")
    return jiwer.wer(reference, hypothesis), jiwer.cer(reference, hypothesis)


def words_in_common(first: str, second: str) -> int:
    """How many words two hearings agree on, in their order."""
    first, second = normalised(first), normalised(second)
    return jiwer.process_words(first, second).hits if first and second else 0


def normalised(text: str) -> str:
    """Text in small letters, without punctuation, its digits spelt one by one: "1,853" and "one eight five three" are
    one, whichever of the two a recogniser writes."""
    spelt = re.sub(r"[0-9]", lambda digit: f" {DIGITS[int(digit[0])]} ", text.lower().replace(",", ""))
    return " ".join(re.sub(r"[^\w' ]+", " ", spelt).split())
