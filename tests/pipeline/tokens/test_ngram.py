import math
from collections import Counter, defaultdict
from time import perf_counter

import numpy as np
import pytest
import torch

from pipeline.tokens import ngram
from pipeline.tokens.dataset import TokenDataset
from pipeline.tokens.ngram import NgramBaselines, count_pairs, interpolate
from pipeline.tokens.shards import finish_split, shard_path, write_shard
from pipeline.tokens.vocabulary import Vocabulary

TOY = Vocabulary(n_codebooks=3, codebook_size=5)


def random_codes(n_documents, seed, vocabulary=TOY, frames=20):
    """Codes that lean towards the small ones, the more so the larger the code before them."""
    generator = np.random.default_rng(seed)
    codes = []
    for _ in range(n_documents):
        uniform = generator.random((int(generator.integers(0, frames)), vocabulary.n_codebooks))
        document = np.zeros(uniform.shape, np.int64)
        previous = 0
        for index in np.ndindex(uniform.shape):
            document[index] = previous = int(vocabulary.codebook_size * uniform[index] ** (1 + previous))
        codes.append(document)
    return codes


def predicted_targets(codes, vocabulary):
    """(position, what comes before, target) for every token of a document but BOS; 'end' is EOS."""
    previous = "start"
    for frame in codes.tolist():
        for position, code in enumerate(frame):
            yield position, previous, code
            previous = code
    yield 0, previous, "end"


def brute_force_losses(train, test, vocabulary, unigram_strengths, bigram_strengths):
    """Total loss and number of targets by position, counted one by one."""
    singles, pairs = defaultdict(Counter), defaultdict(Counter)
    for codes in train:
        for position, previous, target in predicted_targets(codes, vocabulary):
            singles[position][target] += 1
            pairs[position, previous][target] += 1
    totals = np.zeros((vocabulary.n_codebooks, 3))
    n_targets = np.zeros(vocabulary.n_codebooks, int)
    for codes in test:
        for q, previous, target in predicted_targets(codes, vocabulary):
            uniform = 1 / (vocabulary.codebook_size + (q == 0))
            k = unigram_strengths[q]
            unigram = (singles[q][target] + k * uniform) / (singles[q].total() + k)
            k = bigram_strengths[q]
            bigram = (pairs[q, previous][target] + k * unigram) / (pairs[q, previous].total() + k)
            totals[q] -= [math.log(uniform), math.log(unigram), math.log(bigram)]
            n_targets[q] += 1
    return totals, n_targets


@pytest.fixture
def toy(make_split):
    codes = {"train": random_codes(40, 0), "validation": random_codes(10, 1), "test": random_codes(10, 2)}
    return codes, {name: make_split(name, content, TOY) for name, content in codes.items()}


@pytest.fixture
def small_chunks(monkeypatch):
    """Chunk borders inside frames, and at every other place."""
    monkeypatch.setattr(ngram, "CHUNK_TOKENS", 7)


def strengths(baselines, train):
    """The strengths that were chosen, from the probabilities of what training never saw."""
    counts = count_pairs(train)
    chosen = []
    for q in range(counts.shape[0]):
        n_legal = counts.shape[2] - (q > 0)
        singles = counts[q].sum(axis=0)[:n_legal]
        total, uniform = singles.sum(), 1 / n_legal
        # (count + k u) / (total + k) = p, solved for k where p and u differ most.
        p = baselines.unigram[q, :n_legal]
        at = int(np.argmax(np.abs(singles / total - uniform)))
        unigram_strength = (singles[at] - p[at] * total) / (p[at] - uniform)
        context = int(np.argmax(counts[q].sum(axis=1)))
        row, row_total = counts[q, context, :n_legal], counts[q, context].sum()
        at = int(np.argmax(np.abs(row / row_total - p)))
        b = baselines.bigram[q, context, at]
        chosen.append((unigram_strength, (row[at] - b * row_total) / (b - p[at])))
    return np.array(chosen).T


@pytest.mark.usefixtures("small_chunks")
def test_losses_agree_with_counting_one_by_one(toy):
    codes, splits = toy
    baselines = NgramBaselines.fit(splits["train"], splits["validation"])
    losses = baselines.evaluate(splits["test"])

    totals, n_targets = brute_force_losses(codes["train"], codes["test"], TOY, *strengths(baselines, splits["train"]))
    assert losses.n_targets == n_targets.sum() == splits["test"].n_tokens - len(splits["test"])
    np.testing.assert_allclose(
        [losses.uniform, losses.unigram, losses.bigram], totals.sum(axis=0) / n_targets.sum(), rtol=1e-6
    )
    for q, at_position in enumerate(losses.by_codebook):
        assert at_position.n_targets == n_targets[q]
        np.testing.assert_allclose(
            [at_position.uniform, at_position.unigram, at_position.bigram], totals[q] / n_targets[q], rtol=1e-6
        )


def test_the_strength_chosen_is_the_best_on_validation_documents(toy):
    codes, splits = toy
    baselines = NgramBaselines.fit(splits["train"], splits["validation"])
    unigram, bigram = strengths(baselines, splits["train"])

    def validation_loss(unigram_factor, bigram_factor):
        totals, _ = brute_force_losses(
            codes["train"], codes["validation"], TOY, unigram * unigram_factor, bigram * bigram_factor
        )
        return totals.sum(axis=0)

    best = validation_loss(1, 1)
    for factor in (0.5, 0.9, 1.1, 2.0):
        assert validation_loss(factor, 1)[1] >= best[1] - 1e-6
        assert validation_loss(1, factor)[2] >= best[2] - 1e-6
    assert best[2] < best[1] < best[0]


def test_uniform_loss_counts_the_legal_ids(toy):
    _, splits = toy
    losses = NgramBaselines.fit(splits["train"], splits["validation"]).evaluate(splits["test"])
    assert [at_position.uniform for at_position in losses.by_codebook] == pytest.approx(np.log([6, 5, 5]))


def test_probabilities_sum_to_one_over_the_legal_ids(toy):
    _, splits = toy
    baselines = NgramBaselines.fit(splits["train"], splits["validation"])
    for probabilities in (baselines.uniform, baselines.unigram, baselines.bigram):
        np.testing.assert_allclose(probabilities.sum(axis=-1), 1)
        assert (probabilities[0] > 0).all()
        assert (probabilities[1:, ..., :-1] > 0).all()
        assert (probabilities[1:, ..., -1] == 0).all()


def test_what_training_never_saw_has_a_finite_loss(make_split):
    """Even when the validation documents repeat the training, which asks for no smoothing at all."""
    train = [np.zeros((50, 3), np.int64)] * 2
    splits = [make_split(name, train, TOY) for name in ("train", "validation")]
    unseen = make_split("test", [np.full((50, 3), 4)], TOY)
    losses = NgramBaselines.fit(*splits).evaluate(unseen)
    assert math.isfinite(losses.bigram)
    assert losses.bigram > losses.uniform


def test_one_codebook_is_followed_by_itself(make_split):
    vocabulary = Vocabulary(n_codebooks=1, codebook_size=3)
    cycle = [np.arange(300)[:, None] % 3] * 4
    splits = [make_split(name, cycle, vocabulary) for name in ("train", "validation", "test")]
    losses = NgramBaselines.fit(*splits[:2]).evaluate(splits[2])
    assert losses.uniform == pytest.approx(math.log(4))
    assert losses.unigram == pytest.approx(math.log(3), abs=0.03)
    assert losses.bigram < 0.03


def test_pairs_are_counted_where_they_stand(make_split):
    dataset = make_split("train", [np.array([[0, 1, 2], [3, 4, 0]]), np.zeros((0, 3), np.int64)], TOY)
    expected = np.zeros((3, 6, 6), int)
    for q, previous, target in [(0, 5, 0), (1, 0, 1), (2, 1, 2), (0, 2, 3), (1, 3, 4), (2, 4, 0), (0, 0, 5), (0, 5, 5)]:
        expected[q, previous, target] += 1
    np.testing.assert_array_equal(count_pairs(dataset), expected)


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ([1, 8, 13], "does not end with EOS"),
        ([1, 8, 18, 2], "token 18 after 8"),
        ([1, 8, 13, 2], "token 2 after 13"),
        ([8, 13, 18, 2], "token 8 after 2"),
        ([1, 0, 2], "token 0 after 1"),
        ([1, 3, 2], "token 3 after 1"),
        ([1, 1, 2], "token 1 after 1"),
    ],
)
def test_malformed_documents_are_refused(tmp_path, document, message):
    write_shard(shard_path(tmp_path, 0), [np.array(document)], TOY)
    finish_split(tmp_path)
    with pytest.raises(ValueError, match=message):
        count_pairs(TokenDataset.open(tmp_path))


def test_datasets_have_to_fit_each_other(toy, make_split):
    _, splits = toy
    other = make_split("other", [np.zeros((2, 1), np.int64)], Vocabulary(1, 5))
    with pytest.raises(ValueError, match="other has Vocabulary"):
        NgramBaselines.fit(splits["train"], other)
    with pytest.raises(ValueError, match="other has Vocabulary"):
        NgramBaselines.fit(splits["train"], splits["validation"]).evaluate(other)
    empty = make_split("empty", [np.zeros((0, 3), np.int64)], TOY)
    with pytest.raises(ValueError, match="empty has no frames to choose the smoothing by"):
        NgramBaselines.fit(splits["train"], empty)


def test_interpolation_trusts_a_context_the_more_often_it_was_seen():
    prior = np.array([0.75, 0.25])
    smoothed = interpolate(np.array([[0, 0], [0, 1], [0, 1000]]), prior, strength=10.0)
    np.testing.assert_allclose(smoothed[:, 0], [0.75, 7.5 / 11, 7.5 / 1010])


def test_random_codes_follow_their_distributions(toy):
    _, splits = toy
    baselines = NgramBaselines.fit(splits["train"], splits["validation"])
    unigram = baselines.unigram[:, :-1] / baselines.unigram[:, :-1].sum(axis=1, keepdims=True)
    for sample, expected in (
        (baselines.sample_unigram, unigram),
        (baselines.sample_uniform, np.full((3, 5), 0.2)),
    ):
        codes = sample(40000, torch.Generator().manual_seed(0))
        assert codes.shape == (40000, 3)
        assert codes.dtype == torch.int64
        shares = [np.bincount(codes[:, q], minlength=5) / 40000 for q in range(3)]
        np.testing.assert_allclose(shares, expected, atol=0.015)
        assert torch.equal(codes, sample(40000, torch.Generator().manual_seed(0)))
        assert not torch.equal(codes[:100], sample(100, torch.Generator().manual_seed(1)))
        assert sample(0, torch.Generator()).shape == (0, 3)


def test_a_million_tokens_of_a_large_vocabulary_take_seconds_not_minutes(make_split):
    vocabulary = Vocabulary(n_codebooks=4, codebook_size=1024)
    generator = np.random.default_rng(0)
    train = make_split("train", [generator.integers(0, 1024, (1000, 4)) for _ in range(250)], vocabulary, 128)
    validation = make_split("validation", [generator.integers(0, 1024, (1000, 4)) for _ in range(5)], vocabulary)
    start = perf_counter()
    losses = NgramBaselines.fit(train, validation).evaluate(validation)
    assert perf_counter() - start < 10
    # Codes are independent and uniform: there is nothing to learn, and smoothing has to find that out.
    assert losses.bigram == pytest.approx(losses.uniform, abs=0.01)
