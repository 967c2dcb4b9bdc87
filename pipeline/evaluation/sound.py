"""How the decoder's speech measures, beside real speech and controls."""

import logging
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from pipeline.audio.measures.frechet import FrechetStatistics, frechet_distance
from pipeline.audio.measures.gate import FlatnessGate
from pipeline.audio.measures.summary import ClipMeasures, SpeechMeasures, measure_clip, summarise
from pipeline.evaluation.clip import GENERATED, REAL, Clip
from pipeline.evaluation.findings import Findings
from pipeline.evaluation.subject import Subject
from pipeline.plumbing.worker_processes import map_parallel
from pipeline.preparation.origins import Origin
from pipeline.preparation.reference import load_reference

log = logging.getLogger(__name__)

ALL_GENERATED = "generated"
UPPER = np.triu_indices(FrechetStatistics().mean.size)


def sound(subject: Subject) -> Findings:
    """The measures of every clip, and of every body of speech."""
    decoded, undecoded, real = (
        load_reference(subject.prepared / "reference", name).measures
        for name in ("train_codec", "train_real", "validation_real")
    )
    clips = [clip for clip in subject.clips if clip.kind != REAL]
    measured = measure_clips(clips, subject.codec.sample_rate)
    bodies = {name: summarise(body, decoded.statistics) for name, body in bodies_of(clips, measured).items()}
    comparison = comparison_rows({REAL: real, **bodies}, decoded.statistics, undecoded.statistics)
    return Findings(
        audio_metrics({row["signal"]: row for row in comparison}, real, subject.settings.flatness_gate),
        {
            "comparison.csv": comparison,
            "clips.csv": clip_rows(clips, measured, subject.origins, subject.codec.sample_rate),
        },
        arrays={
            "clips.safetensors": {
                **clip_moments(clips, measured),
                **_named("reference/train_codec", decoded.statistics.to_tensors()),
                **_named("reference/train_real", undecoded.statistics.to_tensors()),
            }
        },
    )


def measure_clips(clips: Sequence[Clip], sample_rate: int) -> list[ClipMeasures]:
    """Measure what is each clip's own, on all cores."""
    measure = partial(measure_clip, sample_rate=sample_rate)
    return list(map_parallel(measure, [clip.own_audio for clip in clips], None, "measuring", "clip"))


def bodies_of(clips: Sequence[Clip], measured: Sequence[ClipMeasures]) -> dict[str, list[ClipMeasures]]:
    """The measures of each kind of clip, and of all that was generated."""
    bodies: dict[str, list[ClipMeasures]] = {}
    for clip, measures in zip(clips, measured, strict=True):
        if clip.kind in GENERATED:
            bodies.setdefault(ALL_GENERATED, []).append(measures)
        bodies.setdefault(clip.kind, []).append(measures)
    return bodies


def comparison_rows(
    measures: Mapping[str, SpeechMeasures], reference: FrechetStatistics, undecoded: FrechetStatistics
) -> list[dict[str, Any]]:
    """One row a body of speech, for comparison.csv.

    `fd` is the Fréchet distance to training speech through the codec, `fd_undecoded` that to training speech as it was
    recorded: the one hides what the codec loses, the other shows it.
    """
    return [
        {
            "signal": name,
            "flatness": m.flatness,
            "flatness_db": m.flatness_db,
            "fd": distance(m, reference),
            "fd_undecoded": distance(m, undecoded),
            "mel_flux_db": m.mel_flux_db,
            "modulation_depth": m.modulation_depth,
        }
        for name, m in measures.items()
    ]


def distance(measures: SpeechMeasures, reference: FrechetStatistics) -> float:
    """The Fréchet distance of a body of speech to a reference; NaN when there was nothing to hear."""
    return frechet_distance(measures.statistics, reference) if measures.statistics.count > 1 else float("nan")


def audio_metrics(rows: Mapping[str, Mapping[str, Any]], real: SpeechMeasures, gate: FlatnessGate) -> dict[str, float]:
    """The measures of generated speech, each beside real speech's, and the gate's verdict."""
    generated = rows[ALL_GENERATED]
    verdict = gate.judge(generated["flatness"], real.flatness)
    log.info("Flatness gate %s: %s.", "passed" if verdict.passed else "failed", verdict.reason)
    return {
        "audio/flatness": generated["flatness"],
        "audio/flatness_db": generated["flatness_db"],
        "audio/flatness_reference": real.flatness,
        "audio/flatness_gate": int(verdict.passed),
        "audio/fd": generated["fd"],
        "audio/fd_reference": rows["codec"]["fd"],
        "audio/fd_unigram_random": rows["unigram_random"]["fd"],
        "audio/fd_undecoded": generated["fd_undecoded"],
        "audio/fd_undecoded_reference": rows["codec"]["fd_undecoded"],
        "audio/mel_flux_db": generated["mel_flux_db"],
        "audio/mel_flux_db_reference": real.mel_flux_db,
        "audio/modulation_depth": generated["modulation_depth"],
        "audio/modulation_depth_reference": real.modulation_depth,
    }


def clip_rows(
    clips: Sequence[Clip], measured: Sequence[ClipMeasures], origins: Sequence[Origin], sample_rate: int
) -> list[dict[str, Any]]:
    """One row a clip, for clips.csv: what it is, and what its own audio measures."""
    return [
        {
            "kind": clip.kind,
            "number": clip.number,
            "document": clip.document,
            "speaker": "" if clip.document is None else origins[clip.document].speaker,
            "seed": clip.seed,
            "seconds": len(clip.own_audio) / sample_rate,
            "flatness": m.flatness,
            "mel_flux_db": m.mel_flux_db,
            "modulation_depth": m.modulation_depth,
            "n_frames": clip.n_frames,
        }
        for clip, m in zip(clips, measured, strict=True)
    ]


def clip_moments(clips: Sequence[Clip], measured: Sequence[ClipMeasures]) -> dict[str, np.ndarray]:
    """The Fréchet moments of each kind's clips in order: {kind}/count [N], {kind}/mean [N, F], and {kind}/scatter, the
    upper triangle of each scatter matrix, row by row [N, F (F + 1) / 2]."""
    kinds: dict[str, list[FrechetStatistics]] = {}
    for clip, measures in zip(clips, measured, strict=True):
        kinds.setdefault(clip.kind, []).append(measures.statistics)
    tensors: dict[str, np.ndarray] = {}
    for kind, moments in kinds.items():
        stacked: dict[str, np.ndarray] = {
            "count": np.array([m.count for m in moments], dtype=np.int64),
            "mean": np.stack([m.mean for m in moments]).astype(np.float32),
            "scatter": np.stack([m.scatter[UPPER] for m in moments]).astype(np.float32),
        }
        tensors |= _named(kind, stacked)
    return tensors


def _named(prefix: str, tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {f"{prefix}/{name}": value for name, value in tensors.items()}
