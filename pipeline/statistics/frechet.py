"""The Fréchet distance as a statistic over clips."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from threadpoolctl import threadpool_limits

from pipeline.audio.measures.frechet import RIDGE, FrechetStatistics, symmetric_root

CHUNK = 256  # distances computed at a time


@dataclass(frozen=True, eq=False)
class ClipMoments:
    """The Fréchet moments of clips.

    Attributes:
        counts: active frames of each, [N].
        means: of its features, [N, F].
        scatters: the upper triangle of each scatter matrix about the clip's own mean, row by row, [N, F (F + 1) / 2].
    """

    counts: np.ndarray
    means: np.ndarray
    scatters: np.ndarray

    @classmethod
    def of(cls, clips: Sequence[FrechetStatistics]) -> "ClipMoments":
        """Stack the moments of single clips, of which there is at least one."""
        upper = np.triu_indices(len(clips[0].mean))
        return cls(
            np.array([clip.count for clip in clips], dtype=np.int64),
            np.stack([clip.mean for clip in clips]).astype(np.float32),
            np.stack([clip.scatter[upper] for clip in clips]).astype(np.float32),
        )

    @classmethod
    def join(cls, parts: Sequence["ClipMoments"]) -> "ClipMoments":
        """The clips of all parts, one part after the other."""
        return cls(
            np.concatenate([part.counts for part in parts]),
            np.concatenate([part.means for part in parts]),
            np.concatenate([part.scatters for part in parts]),
        )

    def take(self, units: Sequence[int]) -> "ClipMoments":
        """These clips alone."""
        index = np.asarray(units, dtype=int)
        return ClipMoments(self.counts[index], self.means[index], self.scatters[index])


@dataclass(frozen=True, eq=False)
class FrechetDistance:
    """The squared Fréchet distance in dB² of clips together to a reference, which is taken as it is.

    Mean and covariance of few clips miss those of many by chance, which adds to the distance about c / N for N clips:
    `bootstrap.bias_of` takes that off, so that distances over few and over many clips compare. What the reference's own
    sample adds remains, and is the same for all that are held against it.
    """

    moments: ClipMoments
    reference: FrechetStatistics
    is_biased = True

    @property
    def n_units(self) -> int:
        """How many clips there are."""
        return len(self.moments.counts)

    def __call__(self, weights: np.ndarray) -> np.ndarray:
        """The distance [B] under weights [B, N]; NaN where fewer than two frames count."""
        # Threads that share matrices this small wait for each other ten times as long as they compute.
        with threadpool_limits(1, user_api="blas"):
            parts = [self._distances(weights[start : start + CHUNK]) for start in range(0, len(weights), CHUNK)]
        return np.concatenate(parts) if parts else np.zeros(0)

    def take(self, units: Sequence[int]) -> "FrechetDistance":
        """The distance of these clips alone."""
        return FrechetDistance(self.moments.take(units), self.reference)

    @cached_property
    def _root(self) -> np.ndarray:
        return symmetric_root(self.reference.covariance)

    @cached_property
    def _about_reference(self) -> tuple[np.ndarray, np.ndarray]:
        """Sums [N, F] and outer products [N, F (F + 1) / 2] of deviations from the reference's mean.

        So near to what is subtracted later, no digits are lost.
        """
        counts = self.moments.counts[:, None].astype(float)
        deviations = self.moments.means - self.reference.mean
        rows, columns = self._upper
        return counts * deviations, self.moments.scatters + counts * deviations[:, rows] * deviations[:, columns]

    @property
    def _upper(self) -> tuple[np.ndarray, np.ndarray]:
        return np.triu_indices(len(self.reference.mean))

    def _distances(self, weights: np.ndarray) -> np.ndarray:
        sums, products = self._about_reference
        frames = weights @ self.moments.counts.astype(float)
        enough = frames >= 2
        safe = np.where(enough, frames, 2.0)[:, None]
        shifts = weights @ sums / safe
        covariances = self._covariances(weights @ products, shifts, safe)
        overlaps = np.linalg.eigvalsh(self._root @ covariances @ self._root)
        cross = np.sqrt(np.maximum(overlaps, 0.0)).sum(axis=1)
        spread = np.trace(covariances, axis1=1, axis2=2) + np.trace(self.reference.covariance) - 2 * cross
        return np.where(enough, np.maximum((shifts**2).sum(axis=1) + spread, 0.0), np.nan)

    def _covariances(self, products: np.ndarray, shifts: np.ndarray, frames: np.ndarray) -> np.ndarray:
        rows, columns = self._upper
        n_features = shifts.shape[1]
        full = np.empty((len(products), n_features, n_features))
        full[:, rows, columns] = (products - frames * shifts[:, rows] * shifts[:, columns]) / (frames - 1)
        full[:, columns, rows] = full[:, rows, columns]
        return full + RIDGE * np.eye(n_features)
