"""A model put to work: held-out speech scored, and speech made up, for all parts of an evaluation to look at."""

import logging
from pathlib import Path

from pipeline.audio.codecs.storage import load_codec
from pipeline.checkpoints.loading import load_decoder
from pipeline.evaluation.clip import GENERATED
from pipeline.evaluation.configuration import EvaluationConfig
from pipeline.evaluation.listening import control_speech, random_speech
from pipeline.evaluation.model import checkpoint_weights, codec_folder
from pipeline.evaluation.scoring import score_documents
from pipeline.evaluation.speakers import Speakers
from pipeline.evaluation.speech import speak
from pipeline.evaluation.subject import Subject
from pipeline.plumbing.device import device_of
from pipeline.preparation.origins import read_origins
from pipeline.tokens.dataset import TokenDataset
from pipeline.tokens.ngram import NgramBaselines
from pipeline.tokens.vocabulary import Vocabulary

log = logging.getLogger(__name__)


def examine(model: Path, prepared: Path, context: int | None, settings: EvaluationConfig) -> Subject:
    """Load a model, score held-out speech with it, and let it speak.

    Args:
        model: an export, or another checkpoint.
        prepared: the folder of prepared data, in the tokens of the model's codec.
        context: tokens that the model has learnt to look back over; None: nobody knows.
        settings: of the evaluation.
    """
    decoder = load_decoder(model, weights=checkpoint_weights(settings.weights)).to(device_of(settings.device))
    codec = load_codec(codec_folder(model, prepared))
    vocabulary = Vocabulary(codec.n_codebooks, codec.codebook_size)
    train, validation, test = (open_split(prepared / split, vocabulary) for split in ("train", "validation", "test"))
    baselines = NgramBaselines.fit(train, validation)
    speech, seed = settings.speech, settings.seed
    say_reach(test, context, decoder.config.max_position_embeddings, speech.seconds * codec.frame_rate)
    score = score_documents(decoder, test, vocabulary.n_codebooks, context=context, sampling=settings.sampling)
    spoken = speak(decoder, codec, test, prepared / "examples", speech, settings.sampling, seed, context)
    lengths = [clip.n_frames for clip in spoken if clip.kind in GENERATED]
    clips = (
        *spoken,
        *random_speech(baselines, codec, lengths, seed),
        *control_speech(len(lengths), speech.seconds - speech.prompt_seconds, codec.sample_rate, seed),
    )
    origins = read_origins(test)
    return Subject(
        decoder=decoder,
        codec=codec,
        train=train,
        validation=validation,
        test=test,
        origins=origins,
        speakers=Speakers.of(origins, read_origins(train)),
        prepared=prepared,
        baselines=baselines,
        context=context,
        settings=settings,
        score=score,
        clips=clips,
    )


def say_reach(test: TokenDataset, context: int | None, max_positions: int, n_frames: float) -> None:
    """Say where tokens stand further on than the model was trained to look back.

    Args:
        test: what is scored.
        context: tokens of the training's windows; None: nobody knows.
        max_positions: `max_position_embeddings` of the model.
        n_frames: of the longest utterance that is generated.
    """
    longest = max(int(test.lengths.max()), round(n_frames * test.vocabulary.n_codebooks) + 1)
    if context is not None and longest > context:
        log.info(
            "Utterances of up to %d tokens, windows of %d in training: what lies beyond is scored and spoken through "
            "windows that move on by half.",
            longest,
            context,
        )
    elif context is None and longest > max_positions:
        log.warning(
            "Utterances have up to %d tokens, and the model is made for %d (max_position_embeddings): what lies beyond "
            "says little of it. Evaluate shorter utterances.",
            longest,
            max_positions,
        )


def open_split(folder: Path, vocabulary: Vocabulary) -> TokenDataset:
    """Open a split, and make sure that it speaks the model's language.

    Raises:
        ValueError: when the tokens were prepared with another codec.
    """
    dataset = TokenDataset.open(folder)
    if dataset.vocabulary != vocabulary:
        raise ValueError(
            f"{folder} has tokens of {dataset.vocabulary}, the model's codec speaks {vocabulary}; "
            "train and convert again on the prepared data, or prepare it with the model's codec."
        )
    return dataset
