"""Does the target speak? A few seconds of it, measured."""

import math
from pathlib import Path

import torch

from lightning_modules.model.decoder import Decoder
from lightning_modules.model.sampling_configuration import SamplingConfig
from pipeline.audio.codecs.storage import load_codec
from pipeline.audio.measures.gate import FlatnessGate
from pipeline.audio.measures.summary import ReferenceStatistics, SpeechMeasures, measure_speech
from pipeline.conversion.check import FAIL, PASS, WARN, Check
from pipeline.conversion.configuration import ConversionSettings
from pipeline.conversion.held_out import CannotRunError, HeldOut
from pipeline.evaluation.listening import decode_all
from pipeline.evaluation.synthesis import generate_codes
from pipeline.preparation.reference import load_reference

NAME = "sound"
SAMPLING = SamplingConfig(temperature=0.9, top_k=None, top_p=None)


def check_sound(
    decoder: Decoder,
    codec_folder: Path,
    reference_folder: Path,
    held_out: HeldOut,
    settings: ConversionSettings,
    is_trained: bool,
    seed: int,
    context: int | None,
) -> Check:
    """Let the target speak from nothing, and hold it against real speech and against codes drawn at random.

    Fails on a tone or noise, which is what a trained model that was loaded wrongly makes. A flatness too far from that
    of real speech, or a Fréchet distance no better than that of random codes, is a warning: so little speech measures
    it roughly. The distance is told as a share of that of as many random clips: the bias of few clips is in both, and
    `evaluate` alone says how far it is without.

    Args:
        decoder: of the target.
        codec_folder: what it speaks through.
        reference_folder: what real speech measures, as preparing has left it.
        held_out: speech that the codes are compared with.
        settings: how much is said, and the limits of its flatness.
        is_trained: whether its matrices look so; what is not may beep.
        seed: of the draws.
        context: tokens that the model has learnt to look back over; None: nobody knows.

    Raises:
        CannotRunError: when there is no codec, or nothing to compare with.
    """
    try:
        codec = load_codec(codec_folder)
        references = [load_reference(reference_folder, name) for name in ("train_codec", "validation_real")]
    except (FileNotFoundError, ValueError) as error:
        raise CannotRunError(str(error)) from error
    vocabulary = held_out.documents.vocabulary
    if (codec.n_codebooks, codec.codebook_size) != (vocabulary.n_codebooks, vocabulary.codebook_size):
        raise CannotRunError(f"{codec_folder} is not the codec that the prepared data speak through")
    n_frames = round(settings.clip_seconds * codec.frame_rate)
    nothing = [torch.zeros(0, codec.n_codebooks, dtype=torch.int64)] * settings.clips
    codes = generate_codes(decoder, vocabulary, nothing, n_frames, SAMPLING, seed, settings.clips, context)
    generator = torch.Generator().manual_seed(seed)
    random = [held_out.baselines.sample_unigram(len(clip), generator) for clip in codes]
    spoken, drawn = (
        measure_speech(decode_all(codec, clips, "decoding"), codec.sample_rate, references[0].measures.statistics)
        for clips in (codes, random)
    )
    return judge(spoken, drawn, references[1], settings.flatness_gate, is_trained)


def judge(
    spoken: SpeechMeasures, random: SpeechMeasures, real: ReferenceStatistics, gate: FlatnessGate, is_trained: bool
) -> Check:
    """Say what the measures of generated speech mean, beside those of random codes and of real speech."""
    distance, random_distance = (math.nan if m.fd is None else m.fd for m in (spoken, random))
    share = distance / random_distance if random_distance else math.inf
    numbers = {
        "clips": spoken.n_utterances,
        "silent": spoken.n_silent,
        "flatness": spoken.flatness,
        "flatness_reference": real.measures.flatness,
        "fd_over_random": share,
    }
    verdict = gate.judge(spoken.flatness, real.measures.flatness)
    is_speech = gate.min_flatness <= spoken.flatness <= gate.max_flatness
    if not is_speech and is_trained:
        return Check(NAME, FAIL, verdict.reason, numbers)
    if not verdict.passed:
        return Check(NAME, WARN, verdict.reason, numbers)
    compared = f"Fréchet distance {share:.0%} of that of random codes"
    if not share < 1:
        return Check(NAME, WARN, f"no closer to speech than chance: {compared}", numbers)
    return Check(NAME, PASS, f"{verdict.reason}; {compared}", numbers)
