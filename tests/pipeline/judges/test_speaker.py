import numpy as np
import pytest

pytest.importorskip("resemblyzer")

from pipeline.judges.judge import SAMPLE_RATE, Specimen  # noqa: E402
from pipeline.judges.registry import Options  # noqa: E402
from pipeline.judges.speaker import SpeakerEncoder  # noqa: E402


def test_a_voice_is_its_own() -> None:
    encoder = SpeakerEncoder(Options())
    voice = np.random.default_rng(0).standard_normal(2 * SAMPLE_RATE).astype(np.float32)
    hum = np.sin(0.05 * np.arange(2 * SAMPLE_RATE)).astype(np.float32)
    own, other = (encoder.judge(Specimen(end, prompt=voice, continuation=end)).figures for end in (voice, hum))
    assert own["similarity"] == pytest.approx(1, abs=1e-5)
    assert other["similarity"] < 0.9


def test_without_a_prompt_or_a_voice_there_is_nothing_to_compare() -> None:
    encoder, silence = SpeakerEncoder(Options()), np.zeros(SAMPLE_RATE, np.float32)
    assert encoder.judge(Specimen(silence + 0.1)).figures == {}
    assert encoder.judge(Specimen(silence, prompt=silence + 0.1, continuation=silence)).figures == {}
