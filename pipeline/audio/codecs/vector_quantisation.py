"""Residual vector quantisation: each codebook describes what the ones before it left over."""

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from pipeline.plumbing.threads import single_threaded

BATCH_SIZE = 4096
# Vectors compared with a codebook at once: bounds the distance matrix to 8192 x codebook_size floats.
NEAREST_BLOCK = 8192


def nearest_entries(vectors: Tensor, codebook: Tensor) -> Tensor:
    """Return, for vectors [N, D], the int64 indices [N] of the nearest entries of a codebook [K, D]."""
    # argmin |v - c|² = argmin |c|² - 2 v·c: one matrix product.
    squares = codebook.square().sum(dim=1)
    blocks = [torch.addmm(squares, block, codebook.T, alpha=-2).argmin(dim=1) for block in vectors.split(NEAREST_BLOCK)]
    return torch.cat(blocks)


class ResidualVectorQuantiser:
    """Codebooks [Q, K, D], coarse first."""

    def __init__(self, codebooks: Tensor) -> None:
        self.codebooks = codebooks

    def encode(self, vectors: Tensor) -> Tensor:
        """Return the int64 codes [N, Q] of vectors [N, D], chosen greedily stage by stage."""
        residual = vectors
        codes = []
        for codebook in self.codebooks:
            codes.append(nearest_entries(residual, codebook))
            residual = residual - codebook[codes[-1]]
        return torch.stack(codes, dim=1)

    def decode(self, codes: Tensor) -> Tensor:
        """Return the vectors [N, D] that codes [N, Q] stand for."""
        vectors = torch.zeros(len(codes), self.codebooks.shape[2])
        for stage, codebook in enumerate(self.codebooks):
            vectors = vectors + codebook[codes[:, stage]]
        return vectors


def fit_residual_codebooks(
    vectors: Tensor, n_codebooks: int, codebook_size: int, iterations: int, seed: int
) -> ResidualVectorQuantiser:
    """Fit one codebook a stage by mini-batch k-means to the residuals [N, D] of the stages before.

    The same vectors and seed give the same bits. Raises a ValueError when there are fewer vectors than entries.
    """
    if len(vectors) < codebook_size:
        raise ValueError(
            f"{len(vectors)} frames cannot fit codec.codebook_size={codebook_size} entries; "
            "lower it, or give the codec more audio."
        )
    # It takes seconds to import, and only fitting needs it.
    from sklearn.cluster import MiniBatchKMeans

    residual, codebooks = vectors, []
    with single_threaded():
        for stage in tqdm(range(n_codebooks), desc="Fitting codebooks", unit="codebook", disable=None):
            kmeans = MiniBatchKMeans(
                n_clusters=codebook_size,
                batch_size=BATCH_SIZE,
                max_iter=iterations,
                n_init=1,
                init="random",
                random_state=(seed + stage) % 2**32,
                compute_labels=False,
            ).fit(residual.numpy())
            codebooks.append(torch.from_numpy(kmeans.cluster_centers_).float())
            residual = residual - codebooks[-1][nearest_entries(residual, codebooks[-1])]
    return ResidualVectorQuantiser(torch.stack(codebooks))


def sample_vectors(batches: Iterable[Tensor], n_vectors: int, seed: int) -> Tensor:
    """Draw `n_vectors` of all the vectors in the batches [N, D] uniformly without replacement; all, if there are fewer.

    Every vector gets a random key, and those with the smallest keys stay: one pass, never more than twice `n_vectors`
    and one batch in memory.

    Raises:
        ValueError: there are no vectors.
    """
    random = np.random.default_rng(seed)
    kept: list[Tensor] = []
    keys = np.zeros(0)

    def smallest() -> tuple[list[Tensor], np.ndarray]:
        chosen = np.argsort(keys, kind="stable")[:n_vectors]
        return [torch.cat(kept)[torch.from_numpy(chosen)]], keys[chosen]

    for batch in batches:
        kept.append(batch)
        keys = np.concatenate([keys, random.random(len(batch))])
        if len(keys) > 2 * n_vectors:
            kept, keys = smallest()
    if not kept:
        raise ValueError("There is no audio to fit the codec on; the train split is empty.")
    return smallest()[0][0]
