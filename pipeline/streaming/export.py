"""An export that speaks: the model, the codec that it speaks through, and how far it looks back."""

from dataclasses import dataclass
from pathlib import Path

import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from lightning_modules.model.decoder import Decoder
from pipeline.audio.codecs.codec import Codec
from pipeline.audio.codecs.storage import load_codec
from pipeline.checkpoints.loading import load_decoder
from pipeline.plumbing.device import device_of
from pipeline.provenance.exports import CODEC
from pipeline.provenance.identity import identity_path, read_identity
from pipeline.tokens.vocabulary import Vocabulary


@dataclass(frozen=True)
class SpeakingExport:
    """What is loaded of an export.

    Attributes:
        decoder: the model, in evaluation mode, on its device.
        codec: from codes to sound and back, on the CPU.
        vocabulary: from codes to tokens and back.
        context: tokens that the model has learnt to look back over.
    """

    decoder: Decoder
    codec: Codec
    vocabulary: Vocabulary
    context: int

    def allowed(self) -> Tensor:
        """Which tokens are legal where each codebook is due, bool [Q, V]; models may have room for others."""
        mask = self.vocabulary.allowed_mask()
        return F.pad(mask, (0, self.decoder.config.vocab_size - mask.shape[1]))

    def n_frames(self, seconds: float) -> int:
        """Whole frames nearest to a duration, at least one."""
        return max(1, round(seconds * self.codec.frame_rate))


def load_export(folder: Path, device: str) -> SpeakingExport:
    """Load what speaks.

    Args:
        folder: as convert-checkpoint writes it, in the published layout.
        device: one of `pipeline.plumbing.device.DEVICES`.

    Raises:
        FileNotFoundError: when there is no export, or no codec in it; the message names the remedy.
        ValueError: when the codec's tokens are not the model's, something is damaged, or there is no such device.
    """
    place = device_of(device)
    if not folder.exists():
        raise FileNotFoundError(
            f"export is {folder}, which does not exist; make it with `python -m pipeline.convert_checkpoint`, or name "
            "another with export=…"
        )
    if not (folder / CODEC).is_dir():
        raise FileNotFoundError(
            f"{folder} holds no folder `{CODEC}`, and without its codec nobody hears what a model says; convert the "
            "checkpoint again with layout=huggingface, where its prepared data are."
        )
    codec = load_codec(folder / CODEC)
    vocabulary = Vocabulary(codec.n_codebooks, codec.codebook_size)
    decoder = load_decoder(folder)
    if decoder.config.vocab_size < vocabulary.size:
        raise ValueError(
            f"{folder} has a codec of {vocabulary.size} tokens and a model of {decoder.config.vocab_size}; take the "
            "export anew from where it came."
        )
    identity = read_identity(identity_path(folder))
    learnt = identity.training.context if identity and identity.training else None
    return SpeakingExport(decoder.to(place), codec, vocabulary, learnt or decoder.config.max_position_embeddings)
