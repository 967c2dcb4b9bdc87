"""Held-out speech that both ends of a conversion can be run on."""

from dataclasses import dataclass, replace
from pathlib import Path

from lightning_modules.model.counting import build_on_meta
from lightning_modules.model.decoder import Decoder
from pipeline.checkpoints.loading import read_weights
from pipeline.checkpoints.quantisation import RoundingLog, retype
from pipeline.checkpoints.stored_tensor import CheckpointSource
from pipeline.tokens.dataset import TokenDataset
from pipeline.tokens.ngram import NgramBaselines

BYTES_PER_PARAMETER = 4


@dataclass(frozen=True)
class Surroundings:
    """What a conversion may use beside the two checkpoints.

    Attributes:
        prepared: prepared data.
        codec: the folder of the codec that the model speaks through.
        padded_vocab_size: the configured `model.vocab_size`, where that is larger than the tokens need.
        seed: of the speech that is generated.
        context: tokens that the model has learnt to look back over; None: nobody knows.
        foreign: why the data and the codec are not those of the model, where that is known.
    """

    prepared: Path
    codec: Path
    padded_vocab_size: int | None
    seed: int
    context: int | None = None
    foreign: str = ""


class CannotRunError(Exception):
    """Why a check that runs the model cannot; a check reports it as skipped."""


@dataclass(frozen=True)
class HeldOut:
    """Prepared data that a model speaks the language of.

    Attributes:
        documents: the first of the test split.
        baselines: what counting predicts, fitted to the training split.
    """

    documents: TokenDataset
    baselines: NgramBaselines


def open_held_out(surroundings: Surroundings, vocab_size: int, n_tokens: int) -> HeldOut:
    """Open the test split of prepared data.

    Args:
        surroundings: tell where they lie.
        vocab_size: of the model.
        n_tokens: documents are taken until there are this many.

    Raises:
        CannotRunError: when there are no such data, or they are in another language than the model's.
    """
    if surroundings.foreign:
        raise CannotRunError(surroundings.foreign)
    prepared = surroundings.prepared
    try:
        train, validation, test = (TokenDataset.open(prepared / split) for split in ("train", "validation", "test"))
        if vocab_size not in (test.vocabulary.size, surroundings.padded_vocab_size):
            raise CannotRunError(
                f"{prepared} has a vocabulary of {test.vocabulary.size} tokens, the model one of {vocab_size}"
            )
        return HeldOut(test.excerpt(n_tokens), NgramBaselines.fit(train, validation))
    except FileNotFoundError as error:
        raise CannotRunError(f"no prepared data ({error})") from error
    except ValueError as error:
        raise CannotRunError(f"the prepared data cannot be used ({error})") from error


def assemble(source: CheckpointSource, max_bytes: int) -> Decoder:
    """A decoder in FP32 with the weights of a checkpoint, whatever they are stored in.

    Both ends of a conversion are run so: what differs then is the weights, and not the arithmetic.

    Raises:
        CannotRunError: when it would take more than `max_bytes` of memory.
    """
    decoder = build_on_meta(source.config)
    n_bytes = BYTES_PER_PARAMETER * sum(tensor.numel() for tensor in decoder.state_dict().values())
    if n_bytes > max_bytes:
        raise CannotRunError(
            f"running the model takes {n_bytes / 2**30:,.1f} GiB of memory, conversion.max_run_gib allows "
            f"{max_bytes / 2**30:,.1f}"
        )
    plain = replace(source, tensors=retype(source.tensors, "float32", RoundingLog()))
    decoder.load_state_dict(read_weights(plain, source.config), assign=True)
    decoder.tie_weights()
    return decoder.eval()
