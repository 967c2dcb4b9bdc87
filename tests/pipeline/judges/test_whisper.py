from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("faster_whisper")

from pipeline.judges.judge import SAMPLE_RATE, Specimen  # noqa: E402
from pipeline.judges.registry import Options  # noqa: E402
from pipeline.judges.whisper import Whisper, under_noise  # noqa: E402


def test_silence_has_no_words() -> None:
    judgement = Whisper(Options()).judge(Specimen(np.zeros(SAMPLE_RATE, np.float32), "hello there"))
    assert judgement.heard == ""
    assert judgement.figures == {"confidence": 0, "words_again": 0, "wer": 1, "cer": 1}


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no model.bin"):
        Whisper(Options(recogniser=str(tmp_path)))


def test_the_noise_is_always_the_same_and_twenty_db_down() -> None:
    audio = np.sin(np.arange(SAMPLE_RATE)).astype(np.float32)
    noise = under_noise(audio) - audio
    assert np.mean(noise**2) == pytest.approx(np.mean(audio**2) / 100, rel=0.05)
    assert np.array_equal(under_noise(audio), under_noise(audio))
