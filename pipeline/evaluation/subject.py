"""What is evaluated, with everything that it is held against."""

from dataclasses import dataclass
from pathlib import Path

import torch

from lightning_modules.model.decoder import Decoder
from pipeline.audio.codecs.codec import Codec
from pipeline.evaluation.clip import Clip
from pipeline.evaluation.configuration import EvaluationConfig
from pipeline.evaluation.scoring import Score
from pipeline.evaluation.speakers import Speakers
from pipeline.preparation.origins import Origin
from pipeline.statistics.resampling import Design
from pipeline.tokens.dataset import TokenDataset
from pipeline.tokens.ngram import NgramBaselines
from pipeline.tokens.vocabulary import Vocabulary


@dataclass(frozen=True)
class Subject:
    """A decoder under evaluation. What several parts look at, the score and the sounds, is computed once.

    Attributes:
        decoder: the model, in evaluation mode, on its device.
        codec: of its tokens.
        train: the documents that it has learnt from.
        validation: those that its checkpoint was chosen by.
        test: held-out documents.
        origins: which utterance each document of `test` is, and who speaks it.
        speakers: whether the model has heard them.
        prepared: the folder of the prepared data.
        baselines: what counting predicts.
        context: tokens that the model has learnt to look back over; None: nobody knows.
        settings: of the evaluation.
        score: how well it predicts `test`.
        clips: every sound, in this order: held-out speech as recorded and through the codec, what the model makes up,
            random tokens, and controls.
    """

    decoder: Decoder
    codec: Codec
    train: TokenDataset
    validation: TokenDataset
    test: TokenDataset
    origins: tuple[Origin, ...]
    speakers: Speakers
    prepared: Path
    baselines: NgramBaselines
    context: int | None
    settings: EvaluationConfig
    score: Score
    clips: tuple[Clip, ...]

    @property
    def vocabulary(self) -> Vocabulary:
        """How codes become tokens."""
        return self.test.vocabulary

    @property
    def device(self) -> torch.device:
        """Where the decoder computes."""
        return self.decoder.embed_tokens.weight.device

    @property
    def utterance_design(self) -> Design:
        """How the documents of `test` came about."""
        return self.speakers.design([origin.speaker for origin in self.origins], range(len(self.origins)))

    def clips_of(self, *kinds: str) -> list[Clip]:
        """The clips of these kinds (see `clip.Clip`)."""
        return [clip for clip in self.clips if clip.kind in kinds]
