"""All measures of a body of speech, and the reference that generated speech is held against."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from pipeline.audio.measures.flatness import spectral_flatness
from pipeline.audio.measures.frechet import FrechetStatistics, frechet_distance
from pipeline.audio.measures.modulation import mel_flux, modulation_depth
from pipeline.plumbing.files import atomic_write, read_json, write_json

FORMAT_VERSION = 1


@dataclass(frozen=True)
class ClipMeasures:
    """Measures of one utterance; those that cannot be measured are NaN.

    Attributes:
        flatness: its spectral flatness.
        mel_flux_db: its mel flux.
        modulation_depth: its modulation depth.
        statistics: its Fréchet moments.
    """

    flatness: float
    mel_flux_db: float
    modulation_depth: float
    statistics: FrechetStatistics = field(repr=False, compare=False)


@dataclass(frozen=True)
class SpeechMeasures:
    """Measures of a body of utterances; those that could not be measured at all are NaN.

    Attributes:
        n_utterances: how many there were.
        n_silent: how many of them were silent or shorter than 64 ms, and count in no median.
        flatness: the median spectral flatness.
        flatness_p5: its 5th percentile over the utterances.
        flatness_p95: its 95th percentile.
        flatness_db: the median as 10 log10.
        fd: the Fréchet distance to the reference; None when there was none, or nothing audible.
        mel_flux_db: the median mel flux.
        modulation_depth: the median modulation depth.
        statistics: the Fréchet moments of all utterances together.
    """

    n_utterances: int
    n_silent: int
    flatness: float
    flatness_p5: float
    flatness_p95: float
    flatness_db: float
    fd: float | None
    mel_flux_db: float
    modulation_depth: float
    statistics: FrechetStatistics = field(repr=False, compare=False)

    def numbers(self) -> dict[str, float | None]:
        """Everything but the Fréchet moments, for tables and JSON."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name != "statistics"}


def measure_speech(
    utterances: Iterable[np.ndarray], sample_rate: int, reference: FrechetStatistics | None
) -> SpeechMeasures:
    """Measure utterances, mono float audio [S] each, one after the other.

    Args:
        utterances: the audio.
        sample_rate: of all utterances.
        reference: moments to measure the Fréchet distance to.

    Raises:
        ValueError: an utterance cannot be measured (see `spectra.checked_audio`).
    """
    return summarise([measure_clip(audio, sample_rate) for audio in utterances], reference)


def measure_clip(audio: np.ndarray, sample_rate: int) -> ClipMeasures:
    """Measure one utterance, mono float audio [S].

    Raises:
        ValueError: it cannot be measured (see `spectra.checked_audio`).
    """
    return ClipMeasures(
        spectral_flatness(audio, sample_rate),
        mel_flux(audio, sample_rate),
        modulation_depth(audio, sample_rate),
        FrechetStatistics.from_audio([audio], sample_rate),
    )


def summarise(clips: Sequence[ClipMeasures], reference: FrechetStatistics | None) -> SpeechMeasures:
    """The measures of utterances as one body; `reference` holds moments to measure the Fréchet distance to."""
    statistics = FrechetStatistics()
    for clip in clips:
        statistics.merge(clip.statistics)
    flatness = [clip.flatness for clip in clips]
    low, median, high = (_percentile(flatness, q) for q in (5, 50, 95))
    fd = frechet_distance(statistics, reference) if reference is not None and statistics.count >= 2 else None
    return SpeechMeasures(
        n_utterances=len(flatness),
        n_silent=int(np.isnan(flatness).sum()),
        flatness=median,
        flatness_p5=low,
        flatness_p95=high,
        flatness_db=float(10 * np.log10(median)),
        fd=fd,
        mel_flux_db=_percentile([clip.mel_flux_db for clip in clips], 50),
        modulation_depth=_percentile([clip.modulation_depth for clip in clips], 50),
        statistics=statistics,
    )


def _percentile(values: list[float], q: float) -> float:
    measured = [value for value in values if not np.isnan(value)]
    return float(np.percentile(measured, q)) if measured else float("nan")


@dataclass(frozen=True)
class ReferenceStatistics:
    """The measures of real speech, with the moments to measure Fréchet distances to.

    Attributes:
        sample_rate: of the audio measured.
        measures: what was measured.
    """

    sample_rate: int
    measures: SpeechMeasures

    def save(self, json_path: Path | str, safetensors_path: Path | str) -> None:
        """Write the numbers as JSON, and the Fréchet moments as safetensors."""
        with atomic_write(safetensors_path) as temporary:
            save_file(self.measures.statistics.to_tensors(), temporary)
        content = {
            "format": FORMAT_VERSION,
            "sample_rate": self.sample_rate,
            "n_frames": self.measures.statistics.count,
            "measures": self.measures.numbers(),
        }
        write_json(json_path, content)

    @classmethod
    def load(cls, json_path: Path | str, safetensors_path: Path | str) -> "ReferenceStatistics":
        """Read what `save` wrote.

        Raises:
            FileNotFoundError: naming the file that does not exist.
            ValueError: naming the file that is damaged, of another format, or not of the same reference.
        """
        content = read_json(json_path)
        statistics = _load_statistics(Path(safetensors_path))
        if not isinstance(content, dict) or content.get("format") != FORMAT_VERSION:
            raise ValueError(f"{json_path} is no reference of format {FORMAT_VERSION}; run prepare-data again.")
        if content.get("n_frames") != statistics.count:
            raise ValueError(
                f"{json_path} and {safetensors_path} are not of one reference ({content.get('n_frames')} and "
                f"{statistics.count} frames); run prepare-data again."
            )
        try:
            measures = SpeechMeasures(**content["measures"], statistics=statistics)
            return cls(int(content["sample_rate"]), measures)
        except (KeyError, TypeError) as error:
            raise ValueError(f"{json_path} lacks a measure ({error}); run prepare-data again.") from error


def _load_statistics(path: Path) -> FrechetStatistics:
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; run prepare-data first.")
    try:
        return FrechetStatistics.from_tensors(load_file(path))
    except (SafetensorError, ValueError) as error:
        raise ValueError(f"{path} holds no Fréchet statistics ({error}); run prepare-data again.") from error
