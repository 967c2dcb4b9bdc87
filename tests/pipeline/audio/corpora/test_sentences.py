import re
from itertools import islice

from pipeline.audio.corpora.sentences import NUMBERS, TEMPLATES, distinct_sentences
from pipeline.audio.corpora.words import WORDS


def test_thousands_of_sentences_and_none_twice():
    sentences = list(islice(distinct_sentences(0), 20_000))
    assert len({sentence.casefold() for sentence in sentences}) == 20_000


def test_seed_decides():
    first = list(islice(distinct_sentences(7), 50))
    assert first == list(islice(distinct_sentences(7), 50))
    assert first != list(islice(distinct_sentences(8), 50))


def test_every_list_of_words_is_used_and_every_slot_has_one():
    slots = {slot for template in TEMPLATES for slot in re.findall(r"\{(\w+)\}", template)}
    assert slots == WORDS.keys() | NUMBERS.keys()


def test_sentences_are_well_formed():
    for sentence in islice(distinct_sentences(0), 5000):
        assert not re.search(r"[{}]|  | [,.;!?]", sentence), sentence
        assert re.search(r'[.!?]"?$', sentence), sentence
        assert sentence.lstrip('"')[0].isupper() or sentence[0].isdigit(), sentence
        assert 3 <= len(sentence.split()) <= 45, sentence


def test_articles_go_by_sound():
    text = " ".join(islice(distinct_sentences(0), 20_000))
    assert not re.search(r"\b[Aa] [aeio](?!ne\b)", text)
    assert re.search(r"\b[Aa]n (?:umbrella|usher|old|owl|enormous)\b", text)
    assert not re.search(r"\b[Aa]n [bcdfgjklmnpqrstvwxyz]", text)


def test_digits_times_and_questions_occur():
    sentences = list(islice(distinct_sentences(0), 1000))
    for pattern in (r"\d", r"\d:\d\d", r"o'clock", r"\?$", r"!$", r"\b(1[89]|20)\d\d\b"):
        assert sum(bool(re.search(pattern, sentence)) for sentence in sentences) >= 5, pattern
