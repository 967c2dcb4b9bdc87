"""What judges are given: the model's speech among real speech and sounds that are none."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from pipeline.audio.resampling import resample
from pipeline.evaluation.clip import CODEC, CONTINUATION, REAL, UNIGRAM_RANDOM, UNPROMPTED, Clip
from pipeline.judges.judge import SAMPLE_RATE, Specimen
from pipeline.preparation.origins import Origin

SHUFFLED, SILENCE, OTHER_SPEAKER = "shuffled", "silence", "other_speaker"
# Sounds that are no speech. Those that are much the same from clip to clip are judged a few times only.
STEADY = ("tone", "noise")
JUNK = (UNIGRAM_RANDOM, SHUFFLED, *STEADY, SILENCE)
N_STEADY = 4
SHUFFLED_SECONDS = 0.02


@dataclass(frozen=True)
class Exhibit:
    """A specimen, and what it is.

    Attributes:
        kind: of `clip.Clip`, or shuffled (real speech, its moments of 20 ms in random order), silence, other_speaker
            (real speech of another speaker than the prompt's).
        number: clips of the same number have the same prompt.
        document: the test document that it comes from.
        specimen: what is judged.
    """

    kind: str
    number: int
    document: int | None
    specimen: Specimen


def exhibits(clips: Sequence[Clip], origins: Sequence[Origin], sample_rate: int, n: int, seed: int) -> list[Exhibit]:
    """What judges are given of an evaluation's clips.

    Sounds that are no speech are held against the prompt and the transcript of the real utterance of their number, as
    if they had continued the one and said the other.

    Args:
        clips: of an evaluation.
        origins: of the test documents.
        sample_rate: of the clips.
        n: of each kind, at most.
        seed: of the order of shuffled moments.
    """
    most = {kind: min(N_STEADY, n) for kind in STEADY}
    heard = [at_judges_rate(clip, sample_rate) for clip in clips if clip.number < most.get(clip.kind, n)]
    real = {clip.number: clip for clip in heard if clip.kind == CODEC}
    n_given = max((clip.n_given for clip in heard if clip.kind == CONTINUATION), default=0)
    return [
        *_spoken(heard, real, origins, n_given),
        *_spoilt(real, origins, n_given, seed),
        *_swapped(real, origins, n_given),
    ]


def at_judges_rate(clip: Clip, sample_rate: int) -> Clip:
    """A clip as judges hear it."""
    audio, n_given = resample(clip.audio, sample_rate, SAMPLE_RATE), round(clip.n_given * SAMPLE_RATE / sample_rate)
    return replace(clip, audio=audio, n_given=n_given)


def _spoken(
    clips: Sequence[Clip], real: Mapping[int, Clip], origins: Sequence[Origin], n_given: int
) -> Iterator[Exhibit]:
    """The clips as they are."""
    for clip in clips:
        if clip.kind in (REAL, CODEC):
            specimen = as_if(clip.audio, clip.audio[n_given:], clip, origins, n_given)
        elif clip.kind == CONTINUATION:
            specimen = Specimen(clip.own_audio, prompt=clip.audio[: clip.n_given], continuation=clip.own_audio)
        elif clip.kind == UNPROMPTED:
            specimen = Specimen(clip.audio)
        elif clip.kind in JUNK and clip.number in real:
            specimen = as_if(clip.audio, clip.audio, real[clip.number], origins, n_given)
        else:
            continue
        yield Exhibit(clip.kind, clip.number, clip.document, specimen)


def _spoilt(real: Mapping[int, Clip], origins: Sequence[Origin], n_given: int, seed: int) -> Iterator[Exhibit]:
    """Real speech without its order, and without anything."""
    for number, clip in real.items():
        audio = shuffled(clip.audio, np.random.default_rng((seed, number)))
        specimen = as_if(audio, audio[n_given:], clip, origins, n_given)
        yield Exhibit(SHUFFLED, number, clip.document, specimen)
    for number, clip in list(real.items())[:1]:
        audio = np.zeros_like(clip.audio)
        yield Exhibit(SILENCE, number, None, as_if(audio, audio, clip, origins, n_given))


def _swapped(real: Mapping[int, Clip], origins: Sequence[Origin], n_given: int) -> Iterator[Exhibit]:
    """Real speech that goes on in another voice."""
    speakers = {number: origins[clip.document].speaker for number, clip in real.items() if clip.document is not None}
    for number, speaker in speakers.items():
        others = [other for other in speakers if speakers[other] != speaker]
        if not others:
            continue
        other = real[others[number % len(others)]]
        specimen = as_if(other.audio, other.audio[n_given:], real[number], origins, n_given)
        yield Exhibit(OTHER_SPEAKER, number, other.document, specimen)


def as_if(
    audio: np.ndarray, continuation: np.ndarray, utterance: Clip, origins: Sequence[Origin], n_given: int
) -> Specimen:
    """A sound, as if it said what an utterance says, and a part of it went on after that one's beginning."""
    transcript = "" if utterance.document is None else origins[utterance.document].transcript
    return Specimen(audio, transcript, utterance.audio[:n_given], continuation)


def shuffled(audio: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Audio [S], its moments of 20 ms in random order; the rest at its end is left off."""
    length = round(SHUFFLED_SECONDS * SAMPLE_RATE)
    moments = audio[: len(audio) // length * length].reshape(-1, length)
    return generator.permutation(moments).reshape(-1)
