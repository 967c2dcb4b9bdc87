import pytest
import torch
from scipy.spatial.distance import cdist
from sklearn.cluster import KMeans

from pipeline.audio.codecs.vector_quantisation import (
    ResidualVectorQuantiser,
    fit_residual_codebooks,
    nearest_entries,
    sample_vectors,
)


@pytest.fixture(scope="module")
def vectors():
    """Correlated Gaussian vectors [3000, 12], wide in some directions and narrow in others."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(3000, 12, generator=generator) * torch.linspace(3, 0.2, 12)


def test_nearest_entries_are_scipys_in_float64(vectors):
    codebook = vectors[:64] + 0.1
    distances = cdist(vectors.double().numpy(), codebook.double().numpy())
    assert torch.equal(nearest_entries(vectors, codebook), torch.from_numpy(distances.argmin(axis=1)))


def test_one_codebook_is_as_good_as_lloyds(vectors):
    quantiser = fit_residual_codebooks(vectors, 1, 32, iterations=20, seed=0)
    inertia = float((vectors - quantiser.decode(quantiser.encode(vectors))).square().sum())
    assert inertia < 1.1 * KMeans(32, n_init=3, random_state=0).fit(vectors.numpy()).inertia_


def test_every_codebook_lowers_the_error(vectors):
    quantiser = fit_residual_codebooks(vectors, 5, 32, iterations=20, seed=0)
    codes = quantiser.encode(vectors)
    errors = []
    for n_stages in range(1, 6):
        truncated = ResidualVectorQuantiser(quantiser.codebooks[:n_stages])
        errors.append(float((vectors - truncated.decode(codes[:, :n_stages])).square().mean()))
    assert all(later < 0.9 * earlier for earlier, later in zip(errors, errors[1:], strict=False))
    assert errors[0] < vectors.square().mean()


def test_decode_is_the_sum_of_the_entries():
    codebooks = torch.arange(2 * 3 * 2, dtype=torch.float32).reshape(2, 3, 2)
    decoded = ResidualVectorQuantiser(codebooks).decode(torch.tensor([[0, 2], [1, 0]]))
    assert decoded.tolist() == [[10.0, 12.0], [8.0, 10.0]]


def test_two_fits_have_the_same_bits_whatever_the_thread_count(vectors):
    fits = []
    n_threads = torch.get_num_threads()
    for threads in (1, 2):
        torch.set_num_threads(threads)
        fits.append(fit_residual_codebooks(vectors, 3, 32, iterations=5, seed=7).codebooks)
        assert torch.get_num_threads() == threads
    torch.set_num_threads(n_threads)
    assert torch.equal(*fits)
    assert not torch.equal(fits[0], fit_residual_codebooks(vectors, 3, 32, iterations=5, seed=8).codebooks)


def test_fewer_vectors_than_entries_are_refused(vectors):
    with pytest.raises(ValueError, match=r"31 frames .*codec\.codebook_size=32"):
        fit_residual_codebooks(vectors[:31], 1, 32, iterations=5, seed=0)


def numbered_batches(n_batches, size):
    return (torch.arange(i * size, (i + 1) * size, dtype=torch.float32)[:, None] for i in range(n_batches))


def test_sample_is_uniform_over_all_batches():
    sample = sample_vectors(numbered_batches(200, 50), 2000, seed=0)[:, 0]
    assert len(sample.unique()) == 2000
    # 2000 of 10000: each quarter expects 500 with a standard deviation of 17 (hypergeometric).
    quarters = torch.histc(sample, 4, 0, 10000)
    assert (quarters - 500).abs().max() < 5 * 17


def test_sample_repeats_for_a_seed_and_not_for_another():
    first, again, other = (sample_vectors(numbered_batches(20, 50), 100, seed) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_sample_of_too_few_is_all_of_them():
    sample = sample_vectors(numbered_batches(3, 5), 100, seed=0)[:, 0]
    assert sample.sort().values.tolist() == list(range(15))


def test_no_audio_is_refused():
    with pytest.raises(ValueError, match="no audio"):
        sample_vectors([], 100, seed=0)
