import hashlib
from dataclasses import replace

import numpy as np
import pytest

from pipeline.audio.configuration import ScreeningConfig
from pipeline.preparation.inspection import Inspection, inspect_corpus, require_usable

LENIENT = ScreeningConfig(
    silence_rms=1e-4,
    max_clipped_fraction=0.01,
    max_rejected_fraction=1.0,
    damaged="skip",
    min_sample_rate=4000,
    max_sample_rate=768_000,
    max_hours=24,
)


def inspect(corpus, config: ScreeningConfig = LENIENT, min_seconds: float = 0.3) -> dict[str, Inspection]:
    inspections = inspect_corpus(corpus, corpus.recordings(), min_seconds, config, workers=1)
    require_usable(inspections, config)
    assert [i.recording for i in inspections] == corpus.recordings()
    return {i.recording.id: i for i in inspections}


def test_a_good_recording_is_described(make_corpus, make_voice) -> None:
    audio = make_voice(0.5, 1)
    found = inspect(make_corpus({"s/a": audio}))["s/a"]
    assert found.reason == ""
    assert found.seconds == 0.5
    assert found.sha256 == hashlib.sha256(audio.tobytes()).hexdigest()


def test_every_recording_that_cannot_be_used_has_its_reason(make_corpus, make_voice) -> None:
    good = make_voice(1.0, 1)
    found = inspect(
        make_corpus(
            {
                "s/good": good,
                "s/torn": "truncated: 3 of the announced 9 samples are there",
                "s/silent": np.zeros(8000, np.float32),
                "s/clipped": np.clip(good * 50, -1, 1),
                "s/short": good[:1000],
                "s/empty": good[:0],
                "s/nan": np.where(np.arange(8000) == 70, np.nan, good).astype(np.float32),
            }
        )
    )
    assert {name.removeprefix("s/"): i.reason.split(":")[0] for name, i in found.items()} == {
        "good": "", "torn": "truncated", "silent": "silent", "clipped": "clipped", "short": "too short",
        "empty": "empty", "nan": "holds NaN or infinite samples",
    }  # fmt: skip
    assert (found["s/torn"].seconds, found["s/torn"].sha256) == (0.0, "")
    assert found["s/short"].seconds == 0.125
    assert len(found["s/short"].sha256) == 64


def test_copies_lead_to_the_first_and_rejected_ones_to_nothing(make_corpus, make_voice) -> None:
    a, b, silence = make_voice(0.5, 1), make_voice(0.5, 2), np.zeros(8000, np.float32)
    found = inspect(make_corpus({"z/a": a, "b/b": b, "a/a": a.copy(), "m/a": a.copy(), "s/1": silence, "s/2": silence}))
    assert {name: i.reason for name, i in found.items() if name[0] != "s"} == {
        "z/a": "duplicate of a/a", "b/b": "", "a/a": "", "m/a": "duplicate of a/a",
    }  # fmt: skip
    assert all(i.reason.startswith("silent") for name, i in found.items() if name[0] == "s")
    assert found["z/a"].seconds == 0.5


@pytest.mark.parametrize(("fraction", "fails"), [(0.2, True), (0.3, False), (0.0, True), (1.0, False)])
def test_too_many_unusable_recordings_fail_with_the_first_of_them(
    make_corpus, make_voice, fraction: float, fails: bool
) -> None:
    """Three of ten, a copy among them."""
    audio = {f"s/{i}": make_voice(0.4, i) for i in range(8)}
    corpus = make_corpus(audio | {"s/8": "not a readable audio file", "s/9": audio["s/3"]} | {"s/1": audio["s/1"][:80]})
    config = replace(LENIENT, max_rejected_fraction=fraction)
    if not fails:
        assert sum(bool(i.reason) for i in inspect(corpus, config).values()) == 3
        return
    with pytest.raises(ValueError, match="3 of 10 recordings cannot be used") as caught:
        inspect(corpus, config)
    message = str(caught.value)
    assert f"data.screening.max_rejected_fraction ({fraction})" in message
    assert "s/1: too short" in message
    assert "s/8: not a readable audio file; s/9: duplicate of s/3" in message


def test_only_the_first_are_named(make_corpus) -> None:
    corpus = make_corpus({f"s/{i}": "broken" for i in range(9)})
    with pytest.raises(ValueError, match="s/4: broken. Mend") as caught:
        inspect(corpus, replace(LENIENT, max_rejected_fraction=0.5))
    assert "s/5" not in str(caught.value)
