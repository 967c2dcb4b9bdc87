"""A small export that speaks: a random decoder, and a codec fitted to noise."""

from dataclasses import asdict, replace
from pathlib import Path

import torch

from lightning_modules.model.decoder import Decoder
from pipeline.audio.codecs.configuration import MelRvqConfig
from pipeline.audio.codecs.mel_rvq import MelRvqCodec
from pipeline.audio.codecs.storage import save_codec
from pipeline.checkpoints.conversion import ConversionOptions, convert
from pipeline.checkpoints.registry import open_checkpoint
from pipeline.provenance.identity import Identity, TrainingIdentity, identity_path, write_identity
from pipeline.tokens.vocabulary import Special, Vocabulary
from tests.conftest import TINY

VOCABULARY = Vocabulary(n_codebooks=2, codebook_size=16)
# 125 frames a second, two tokens each.
CODEC = MelRvqConfig(
    sample_rate=8000,
    n_fft=256,
    hop_length=64,
    n_mels=20,
    f_min=0.0,
    f_max=4000.0,
    log_floor=1e-5,
    loudness_db=-20.0,
    n_codebooks=2,
    codebook_size=16,
    fit_frames=200,
    kmeans_iterations=3,
    griffin_lim_iterations=4,
    griffin_lim_momentum=0.9,
    stream_chunk_frames=4,
    stream_lookahead_frames=2,
    stream_context_frames=3,
)


def noise_codec() -> MelRvqCodec:
    noise = 0.1 * torch.randn(20_000, generator=torch.Generator().manual_seed(0))
    return MelRvqCodec.fit(CODEC, [noise], seed=0)


def talkative_decoder() -> Decoder:
    """A random decoder that seldom ends an utterance: the end is not among its most probable tokens."""
    torch.manual_seed(0)
    decoder = Decoder(replace(TINY, vocab_size=VOCABULARY.size, initializer_range=0.3)).eval()
    decoder.initialize_weights()
    with torch.no_grad():
        for name, parameter in decoder.named_parameters():
            if "norm" in name:
                parameter.uniform_(0.5, 1.5)
        decoder.lm_head.weight[Special.EOS] = 0
    return decoder


def write_speaking_export(folder: Path, decoder: Decoder, codec: MelRvqCodec, context: int = 256) -> Path:
    """Write an export in the published layout, as convert-checkpoint does, of a training with windows of `context`."""
    state = {f"decoder.{name}": tensor for name, tensor in decoder.state_dict().items()}
    trained = folder.with_suffix(".ckpt")
    torch.save(
        {"state_dict": state, "hyper_parameters": {"decoder": asdict(decoder.config)}, "global_step": 1}, trained
    )
    convert(open_checkpoint(trained), folder, "huggingface", ConversionOptions())
    save_codec(codec, folder / "codec")
    training = TrainingIdentity("", "", "", "", "checkpoint", context)
    write_identity(identity_path(folder), Identity(training))
    return folder
