"""How the decoder's speech measures, beside real speech and controls."""

import logging
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from pipeline.audio.measures.frechet import FrechetStatistics
from pipeline.audio.measures.gate import FlatnessGate
from pipeline.audio.measures.summary import ClipMeasures, SpeechMeasures, measure_clip
from pipeline.evaluation.body import ALL_GENERATED, Body, BodyMeasures, gather, measure_body, measures_of_whole
from pipeline.evaluation.clip import CODEC, REAL, UNIGRAM_RANDOM, Clip
from pipeline.evaluation.findings import Findings
from pipeline.evaluation.ranks import share
from pipeline.evaluation.subject import Subject
from pipeline.plumbing.worker_processes import map_parallel
from pipeline.preparation.origins import Origin
from pipeline.preparation.reference import load_reference
from pipeline.statistics.frechet import ClipMoments

log = logging.getLogger(__name__)


def sound(subject: Subject) -> Findings:
    """The measures of every clip, and of every body of speech."""
    decoded, undecoded, real = (
        load_reference(subject.prepared / "reference", name).measures
        for name in ("train_codec", "train_real", "validation_real")
    )
    clips = [clip for clip in subject.clips if clip.kind != REAL]
    measured = measure_clips(clips, subject.codec.sample_rate)
    bodies = gather(clips, measured, subject.origins, subject.speakers)
    measures = measure_bodies(bodies, decoded.statistics, undecoded.statistics)
    signals = {REAL: measures_of_whole(real, decoded.statistics, undecoded.statistics), **measures}
    return Findings(
        audio_metrics(measures, real, subject.settings.flatness_gate),
        {
            "comparison.csv": [{"signal": name, **found.row()} for name, found in signals.items()],
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
    sounds = [clip.own_audio for clip in clips]
    return share(lambda own: list(map_parallel(measure, own, None, "measuring", "clip")), sounds)


def measure_bodies(
    bodies: Sequence[Body], reference: FrechetStatistics, undecoded: FrechetStatistics
) -> dict[str, BodyMeasures]:
    """Measure every body, on all cores."""
    measure = partial(measure_body, reference=reference, undecoded=undecoded)
    found = share(lambda own: list(map_parallel(measure, own, None, "drawing clips again", "body")), bodies)
    return {body.name: measures for body, measures in zip(bodies, found, strict=True)}


def audio_metrics(measures: Mapping[str, BodyMeasures], real: SpeechMeasures, gate: FlatnessGate) -> dict[str, float]:
    """The measures of generated speech with their intervals, each beside real speech's, and the gate's verdict."""
    generated, codec = measures[ALL_GENERATED], measures[CODEC]
    verdict = gate.judge(generated.flatness.value, real.flatness)
    log.info("Flatness gate %s: %s.", "passed" if verdict.passed else "failed", verdict.reason)
    return {
        **generated.flatness.metrics("audio/flatness"),
        **generated.flatness_db.metrics("audio/flatness_db"),
        "audio/flatness_reference": real.flatness,
        "audio/flatness_gate": int(verdict.passed),
        **generated.fd.metrics("audio/fd"),
        **codec.fd.metrics("audio/fd_reference"),
        **measures[UNIGRAM_RANDOM].fd.metrics("audio/fd_unigram_random"),
        **generated.fd_undecoded.metrics("audio/fd_undecoded"),
        **codec.fd_undecoded.metrics("audio/fd_undecoded_reference"),
        **generated.mel_flux_db.metrics("audio/mel_flux_db"),
        "audio/mel_flux_db_reference": real.mel_flux_db,
        **generated.modulation_depth.metrics("audio/modulation_depth"),
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
    for kind, statistics in kinds.items():
        moments = ClipMoments.of(statistics)
        stacked = {"count": moments.counts, "mean": moments.means, "scatter": moments.scatters}
        tensors |= _named(kind, stacked)
    return tensors


def _named(prefix: str, tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {f"{prefix}/{name}": value for name, value in tensors.items()}
