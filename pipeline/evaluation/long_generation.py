"""Speech that may not end: whether it stays speech, or falls silent, hums, hisses, or says the same over and over."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from lightning_modules.model.decoding.engine import Engine
from lightning_modules.model.decoding.generation import draw_seeds
from pipeline.audio.measures.flatness import spectral_flatness
from pipeline.audio.measures.gate import FlatnessGate
from pipeline.evaluation.clip import CODEC, Clip
from pipeline.evaluation.findings import Findings
from pipeline.evaluation.listening import decode_all
from pipeline.evaluation.subject import Subject
from pipeline.evaluation.synthesis import Request, opening_tokens, say_all
from pipeline.tokens.repetition import said_before, without_holds
from pipeline.tokens.vocabulary import Special

GENERATED, HELD_OUT = "generated", "held_out"
WINDOW_SECONDS = 2.5
# Codes of a run that counts as said again: of held-out speech hardly one in a hundred does.
RUN = 6
# A window is a loop when more than this has been said before, and silent below this level.
LOOP, SILENT_DB = 0.5, -60.0
SPEECH = "speech"


@dataclass(frozen=True)
class Window:
    """A stretch of a long clip.

    Attributes:
        second: when it begins.
        flatness: spectral, NaN where there is nothing to hear.
        level_db: RMS, of full scale.
        repetition: the share of runs of codes that the clip has said before; NaN where there is no run.
        state: speech, or the way in which it is none: silence, tone, noise, held (one sound goes on), loop.
    """

    second: float
    flatness: float
    level_db: float
    repetition: float
    state: str


def long_generation(subject: Subject) -> Findings:
    """Speech of `evaluate.long_seconds` in windows, beside held-out utterances one after another."""
    settings, codec = subject.settings.long, subject.codec
    n_frames = round(settings.long_seconds * codec.frame_rate)
    if n_frames == 0:
        return Findings(tables={"long_generation.csv": ()})
    codes = talk_on(subject, settings.long_clips, n_frames)
    spoken = {
        GENERATED: list(zip(codes, decode_all(codec, codes, "decoding long speech"), strict=True)),
        HELD_OUT: [one_after_another(subject.clips_of(CODEC))],
    }
    gate = subject.settings.flatness_gate
    found = {
        signal: [windows(*talk, codec.sample_rate, codec.frame_rate, gate) for talk in talks]
        for signal, talks in spoken.items()
    }
    rows = [
        {"signal": signal, "number": number} | asdict(window)
        for signal, clips in found.items()
        for number, clip in enumerate(clips)
        for window in clip
    ]
    metrics = long_metrics(found[GENERATED]) | {
        f"{name}_reference": value for name, value in long_metrics(found[HELD_OUT]).items()
    }
    return Findings({"long/seconds": settings.long_seconds} | metrics, {"long_generation.csv": rows})


def talk_on(subject: Subject, n_clips: int, n_frames: int) -> list[Tensor]:
    """Codes [F, Q] of clips from nothing that are not allowed to end before `n_frames` frames."""
    vocabulary, device = subject.vocabulary, subject.device
    allowed = vocabulary.allowed_mask()
    allowed[0, Special.EOS] = False
    opening = opening_tokens(vocabulary, torch.empty((0, vocabulary.n_codebooks), dtype=torch.int64))
    n_new = n_frames * vocabulary.n_codebooks
    make_engine = partial(
        Engine,
        subject.decoder,
        capacity=len(opening) + n_new,
        sampling=subject.settings.sampling,
        allowed=allowed.to(device),
        context=subject.context,
    )
    seeds = draw_seeds(n_clips, torch.Generator().manual_seed(subject.settings.seed))
    said = say_all(make_engine, [Request(opening, n_new, seed) for seed in seeds], n_clips, device)
    return [vocabulary.tokens_to_codes(tokens) for tokens in said]


def one_after_another(clips: Sequence[Clip]) -> tuple[Tensor, np.ndarray]:
    """Codes [F, Q] and audio [S] of all clips end to end, those of a document that was taken several times once."""
    once = {clip.document: clip for clip in clips if clip.codes is not None}.values()
    codes = torch.cat([clip.codes for clip in once if clip.codes is not None])
    return codes, np.concatenate([clip.audio for clip in once])


def windows(codes: Tensor, audio: np.ndarray, sample_rate: int, frame_rate: float, gate: FlatnessGate) -> list[Window]:
    """Measure a clip, codes [F, Q] and audio [S], window by window; what is left at its end is no window."""
    n_samples = round(WINDOW_SECONDS * sample_rate)
    found = []
    for number, repetition in enumerate(repetition_by_window(codes[:, 0].numpy(), round(WINDOW_SECONDS * frame_rate))):
        part = audio[number * n_samples : (number + 1) * n_samples].astype(np.float64)
        flatness, level_db = spectral_flatness(part, sample_rate), float(10 * np.log10(np.mean(part**2) + 1e-12))
        state = state_of(flatness, level_db, repetition, gate)
        found.append(Window(number * WINDOW_SECONDS, flatness, level_db, repetition, state))
    return found


def repetition_by_window(codes: np.ndarray, n_frames: int) -> list[float]:
    """Of each window of `n_frames` coarsest codes [F], the share of runs that the clip has said before.

    Codes that are held count once; NaN where no run begins in a window.
    """
    again, begins = said_before(without_holds(codes), RUN), np.flatnonzero(np.diff(codes, prepend=-1))
    window_of_run = begins[: len(again)] // n_frames
    n_windows = len(codes) // n_frames
    runs = np.bincount(window_of_run, minlength=n_windows)[:n_windows]
    repeated = np.bincount(window_of_run, weights=again, minlength=n_windows)[:n_windows]
    return np.where(runs > 0, repeated / np.maximum(runs, 1), np.nan).tolist()


def state_of(flatness: float, level_db: float, repetition: float, gate: FlatnessGate) -> str:
    """What a window is."""
    if level_db < SILENT_DB or np.isnan(flatness):
        return "silence"
    if flatness < gate.min_flatness:
        return "tone"
    if flatness > gate.max_flatness:
        return "noise"
    if np.isnan(repetition):
        return "held"
    return "loop" if repetition > LOOP else SPEECH


def long_metrics(clips: Sequence[Sequence[Window]]) -> dict[str, float]:
    """How much of long clips is speech, in all and in their last quarter, and how much the latter says again."""
    every = [window for clip in clips for window in clip]
    last = [window for clip in clips for window in clip[3 * len(clip) // 4 :]]
    repetition = [window.repetition for window in last if not np.isnan(window.repetition)]
    if not every:
        return {}
    return {
        "long/speech": float(np.mean([window.state == SPEECH for window in every])),
        "long/speech_at_end": float(np.mean([window.state == SPEECH for window in last])),
        "long/repetition_at_end": float(np.mean(repetition)) if repetition else float("nan"),
    }
