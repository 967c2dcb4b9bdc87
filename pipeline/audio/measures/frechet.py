"""The Fréchet distance between two bodies of speech, over log-mel frames."""

from collections.abc import Iterable, Mapping

import numpy as np

from pipeline.audio.measures.spectra import N_MELS, log_mel_spectra

DELTA_REACH = 2  # frames either side: a delta spans four frames, 40 ms
N_FEATURES = 2 * N_MELS
RIDGE = 1e-3  # dB²


def frechet_features(audio: np.ndarray, sample_rate: int) -> np.ndarray:
    """Return features [N, 2 * N_MELS] of the active frames of one utterance, audio [S].

    A frame's 40 log-mel levels in dB (see `spectra.log_mel_spectra`), and for each the level two frames later less
    that two frames earlier. Differences are taken before inactive frames are dropped, so they always span 40 ms. The
    first and last two frames have no neighbours and are left out.

    Raises:
        ValueError: the audio cannot be measured (see `spectra.checked_audio`).
    """
    levels, active = log_mel_spectra(audio, sample_rate)
    deltas = levels[2 * DELTA_REACH :] - levels[: -2 * DELTA_REACH]
    middle = slice(DELTA_REACH, -DELTA_REACH)
    return np.concatenate([levels[middle], deltas], axis=1)[active[middle]]


class FrechetStatistics:
    """Mean and covariance of features, accumulated in float64 over any number of utterances.

    Attributes:
        count: frames seen.
        mean: [2 * N_MELS] their mean.
        scatter: [2 * N_MELS, 2 * N_MELS] the sum of the outer products of their deviations from the mean.
    """

    def __init__(self) -> None:
        self.count = 0
        self.mean = np.zeros(N_FEATURES)
        self.scatter = np.zeros((N_FEATURES, N_FEATURES))

    @classmethod
    def from_audio(cls, utterances: Iterable[np.ndarray], sample_rate: int) -> "FrechetStatistics":
        """Return the statistics of utterances, each audio [S]."""
        statistics = cls()
        for audio in utterances:
            statistics.update(audio, sample_rate)
        return statistics

    @property
    def covariance(self) -> np.ndarray:
        """The unbiased covariance, with 1e-3 dB² on its diagonal so that constant features keep it invertible.

        Raises:
            ValueError: fewer than two frames were seen.
        """
        if self.count < 2:
            raise ValueError(
                f"A covariance takes at least two active frames, and there are {self.count}; "
                "the utterances are silent, too short or missing."
            )
        return self.scatter / (self.count - 1) + RIDGE * np.eye(len(self.mean))

    def update(self, audio: np.ndarray, sample_rate: int) -> None:
        """Take in one utterance, audio [S]; silent or very short ones add nothing."""
        features = frechet_features(audio, sample_rate)
        if len(features):
            mean = features.mean(axis=0)
            deviations = features - mean
            self._combine(len(features), mean, deviations.T @ deviations)

    def merge(self, other: "FrechetStatistics") -> None:
        """Take in everything that `other` has seen."""
        self._combine(other.count, other.mean, other.scatter)

    def to_tensors(self) -> dict[str, np.ndarray]:
        """Return arrays for a safetensors file; `from_tensors` reads them."""
        return {"count": np.array([self.count], dtype=np.int64), "mean": self.mean, "scatter": self.scatter}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, np.ndarray]) -> "FrechetStatistics":
        """Return the statistics that `to_tensors` described.

        Raises:
            ValueError: naming an array that is missing or has another shape.
        """
        statistics = cls()
        for name, expected in statistics.to_tensors().items():
            if name not in tensors or tensors[name].shape != expected.shape:
                found = f"shape {list(tensors[name].shape)}" if name in tensors else "nothing"
                raise ValueError(f"Fréchet statistics need {name!r} of shape {list(expected.shape)}, not {found}.")
        statistics.count = int(tensors["count"][0])
        statistics.mean = tensors["mean"].astype(np.float64)
        statistics.scatter = tensors["scatter"].astype(np.float64)
        return statistics

    def _combine(self, count: int, mean: np.ndarray, scatter: np.ndarray) -> None:
        """Add the moments of further frames (Chan, Golub and LeVeque, 1979: no large sums are subtracted)."""
        total = self.count + count
        if count == 0:
            return
        shift = mean - self.mean
        self.scatter = self.scatter + scatter + np.outer(shift, shift) * (self.count * count / total)
        self.mean = self.mean + shift * (count / total)
        self.count = total


def frechet_distance(a: FrechetStatistics, b: FrechetStatistics) -> float:
    """Return the squared Fréchet (2-Wasserstein) distance, in dB², between Gaussians with the statistics' moments.

    `|μa - μb|² + tr(Σa + Σb - 2 (Σa Σb)^½)` (Dowson and Landau, 1982); the last trace is taken as the sum of the
    singular values of Σa^½ Σb^½, whose roots are symmetric and real. It is biased upwards when there are few frames:
    compare numbers that come from similar amounts of speech.

    Raises:
        ValueError: either side has fewer than two frames.
    """
    covariance_a, covariance_b = a.covariance, b.covariance
    roots = symmetric_root(covariance_a) @ symmetric_root(covariance_b)
    cross = np.linalg.svd(roots, compute_uv=False).sum()
    spread = np.trace(covariance_a) + np.trace(covariance_b) - 2 * cross
    return max(0.0, float(np.sum((a.mean - b.mean) ** 2) + spread))


def symmetric_root(covariance: np.ndarray) -> np.ndarray:
    """The symmetric root of a covariance [F, F]."""
    values, vectors = np.linalg.eigh(covariance)
    return (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T
