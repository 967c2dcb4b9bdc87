import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.tokens.vocabulary import Special, Vocabulary

SMALL = Vocabulary(n_codebooks=2, codebook_size=4)


@st.composite
def vocabularies_and_codes(draw):
    vocabulary = Vocabulary(draw(st.integers(1, 9)), draw(st.integers(2, 1100)))
    frame = st.lists(
        st.integers(0, vocabulary.codebook_size - 1),
        min_size=vocabulary.n_codebooks,
        max_size=vocabulary.n_codebooks,
    )
    frames = draw(st.lists(frame, max_size=6))
    return vocabulary, torch.tensor(frames, dtype=torch.int64).reshape(-1, vocabulary.n_codebooks)


@given(vocabularies_and_codes())
def test_codes_survive_the_way_to_tokens_and_back(case):
    vocabulary, codes = case
    document = vocabulary.document(codes)
    assert document.dtype == np.int64
    assert document[0] == Special.BOS
    assert document[-1] == Special.EOS
    assert len(document) == codes.numel() + 2
    assert torch.equal(vocabulary.tokens_to_codes(document), codes)
    assert torch.equal(vocabulary.tokens_to_codes(vocabulary.codes_to_tokens(codes)), codes)


@given(vocabularies_and_codes())
def test_every_token_is_allowed_where_it_stands(case):
    vocabulary, codes = case
    mask = vocabulary.allowed_mask()
    for i, token in enumerate(vocabulary.codes_to_tokens(codes).tolist()):
        assert vocabulary.position_of(token) == i % vocabulary.n_codebooks
        assert mask[:, token].tolist() == [q == i % vocabulary.n_codebooks for q in range(vocabulary.n_codebooks)]


def test_ids_are_laid_out_as_documented():
    assert list(Special) == list(range(8))
    assert (Special.PAD, Special.BOS, Special.EOS, Special.RESERVED_4) == (0, 1, 2, 7)
    assert SMALL.size == 16
    assert SMALL.codes_to_tokens(torch.tensor([[0, 1], [3, 2]])).tolist() == [8, 13, 11, 14]


def test_mask_allows_the_codebook_that_is_due_and_the_end_before_a_frame():
    expected = torch.zeros(2, 16, dtype=torch.bool)
    expected[0, [2, 8, 9, 10, 11]] = True
    expected[1, 12:16] = True
    assert torch.equal(SMALL.allowed_mask(), expected)


def test_specials_and_an_incomplete_frame_are_dropped():
    tokens = torch.tensor([1, 8, 13, 11, 2, 0, 0])
    assert SMALL.tokens_to_codes(tokens).tolist() == [[0, 1]]
    assert SMALL.tokens_to_codes(torch.tensor([1, 2])).shape == (0, 2)


@pytest.mark.parametrize("token", [0, 7, 16, -1])
def test_position_of_no_code_is_an_error(token):
    with pytest.raises(ValueError, match=f"Token {token} stands for no code; codes are 8 to 15"):
        SMALL.position_of(token)


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        ([8, 8], "Code token 1 belongs to codebook 0 where codebook 1 is due"),
        ([12], "Code token 0 belongs to codebook 1 where codebook 0 is due"),
        ([8, 16], "from 8 to 16, outside a vocabulary of 16"),
        ([-1], "outside a vocabulary"),
    ],
)
def test_tokens_that_are_no_frames_are_refused(tokens, message):
    with pytest.raises(ValueError, match=message):
        SMALL.tokens_to_codes(torch.tensor(tokens))


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        (torch.zeros(3, 3, dtype=torch.int64), r"shape \[frames, 2\]"),
        (torch.zeros(3, 2), "must be integers"),
        (torch.tensor([[0, 4]]), "from 0 to 4, outside a codebook of 4"),
        (torch.tensor([[-1, 0]]), "from -1 to 0"),
    ],
)
def test_codes_of_another_codec_are_refused(codes, message):
    with pytest.raises(ValueError, match=message):
        SMALL.document(codes)


@pytest.mark.parametrize("sizes", [(0, 4), (1, 1)])
def test_an_empty_vocabulary_is_refused(sizes):
    with pytest.raises(ValueError, match="n_codebooks"):
        Vocabulary(*sizes)
