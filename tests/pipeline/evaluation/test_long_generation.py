import math

import numpy as np
import pytest
import torch

from pipeline.audio.measures.gate import FlatnessGate
from pipeline.evaluation.clip import Clip
from pipeline.evaluation.long_generation import (
    WINDOW_SECONDS,
    Window,
    long_metrics,
    one_after_another,
    repetition_by_window,
    state_of,
    windows,
)

RATE, FRAME_RATE = 8000, 40.0
GATE = FlatnessGate(min_ratio=0.5, max_ratio=2.0, min_flatness=0.01, max_flatness=0.6)


def test_a_loop_shows_from_its_second_turn_on() -> None:
    turn = np.random.default_rng(0).integers(0, 50, 100)
    assert repetition_by_window(np.tile(turn, 3), 100) == pytest.approx([0, 1, 1], abs=0.06)
    assert repetition_by_window(np.random.default_rng(1).integers(0, 50, 300), 100) == [0, 0, 0]


def test_where_one_sound_is_held_nothing_is_said_again() -> None:
    codes = np.concatenate([np.arange(100) % 50, np.full(100, 7)])
    first, held = repetition_by_window(codes, 100)
    assert first > 0.4
    assert math.isnan(held)


@pytest.mark.parametrize(
    ("figures", "state"),
    [
        ((0.2, -23, 0.0), "speech"),
        ((0.2, -23, 0.9), "loop"),
        ((0.2, -23, math.nan), "held"),
        ((1e-5, -23, 0.0), "tone"),
        ((0.9, -23, 0.0), "noise"),
        ((0.9, -79, 0.0), "silence"),
        ((math.nan, -23, 0.0), "silence"),
    ],
)
def test_a_window_is_called_what_it_is(figures: tuple[float, float, float], state: str) -> None:
    assert state_of(*figures, GATE) == state


def test_windows_show_where_speech_breaks_down() -> None:
    n = round(WINDOW_SECONDS * RATE)
    hiss = np.random.default_rng(0).standard_normal(n)
    dull = np.convolve(hiss, np.ones(6) / 6)[:n]
    audio = np.concatenate([0.1 * dull, 0.1 * hiss, np.zeros(n), np.zeros(n // 2)]).astype(np.float32)
    codes = torch.from_numpy(np.random.default_rng(1).integers(0, 90, (350, 2)))
    found = windows(codes, audio, RATE, FRAME_RATE, GATE)
    assert [(window.second, window.state) for window in found] == [(0, "speech"), (2.5, "noise"), (5, "silence")]


def test_metrics_look_at_all_windows_and_at_the_last_quarter() -> None:
    clip = [Window(i, 0.2, -23, i / 10, "speech" if i < 7 else "loop") for i in range(8)]
    metrics = long_metrics([clip])
    assert metrics == {"long/speech": 7 / 8, "long/speech_at_end": 0.5, "long/repetition_at_end": pytest.approx(0.65)}
    assert long_metrics([[]]) == {}


def test_held_out_utterances_are_joined_each_once() -> None:
    codes = torch.arange(6).reshape(3, 2)
    clips = [Clip("codec", n, np.full(4, n, np.float32), document=n % 2, codes=codes + n % 2) for n in range(4)]
    joined, audio = one_after_another(clips)
    assert joined.shape == (6, 2)
    assert len(audio) == 8
