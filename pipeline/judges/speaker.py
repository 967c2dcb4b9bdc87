"""A speaker encoder: whether the voice that goes on is the voice that was given."""

from collections.abc import Mapping

import numpy as np
from resemblyzer import VoiceEncoder, normalize_volume
from resemblyzer.hparams import audio_norm_target_dBFS

from pipeline.judges.judge import Judgement, Measure, Specimen
from pipeline.judges.registry import Options


class SpeakerEncoder:
    """Resemblyzer's encoder, trained by the generalised end-to-end loss (Wan et al., arXiv 1710.10467)."""

    compares = True
    origin = "Resemblyzer 0.1.4 (Resemble AI)"
    measures: Mapping[str, Measure] = {
        "similarity": Measure("Same voice", "higher", "cosine between the voice of the prompt and that which goes on"),
    }

    def __init__(self, options: Options) -> None:
        self._encoder = VoiceEncoder(options.device, verbose=False)

    def judge(self, specimen: Specimen) -> Judgement:
        """Compare the two voices; nothing where there is no prompt, or one of both is silent."""
        if specimen.prompt is None or specimen.continuation is None:
            return Judgement()
        if not specimen.prompt.any() or not specimen.continuation.any():
            return Judgement()
        return Judgement({"similarity": float(self._embed(specimen.prompt) @ self._embed(specimen.continuation))})

    def _embed(self, audio: np.ndarray) -> np.ndarray:
        """The voice of audio [S], of unit length [256]. Pauses stay in: in humming, nothing else would be left."""
        levelled = normalize_volume(audio, audio_norm_target_dBFS, increase_only=True)
        embedding: np.ndarray = self._encoder.embed_utterance(levelled)
        return embedding
