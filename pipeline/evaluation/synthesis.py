"""Speech that a decoder makes up, as codes."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm

from lightning_modules.model.decoder import Decoder
from lightning_modules.model.decoding.generation import generate
from lightning_modules.model.sampling_configuration import SamplingConfig
from pipeline.tokens.vocabulary import Special, Vocabulary


def opening_tokens(vocabulary: Vocabulary, codes: Tensor) -> Tensor:
    """The tokens [1 + f * Q] that an utterance opens with: the beginning-of-document token, and its codes [f, Q]."""
    return torch.cat((torch.tensor([Special.BOS]), vocabulary.codes_to_tokens(codes)))


def generate_codes(
    decoder: Decoder,
    vocabulary: Vocabulary,
    prompts: Sequence[Tensor],
    n_frames: int,
    sampling: SamplingConfig,
    seed: int,
    batch_size: int,
    context: int | None = None,
) -> list[Tensor]:
    """Continue every prompt until its utterance ends, or `n_frames` frames are reached.

    Args:
        decoder: the model, in evaluation mode, on whichever device.
        vocabulary: how codes become tokens.
        prompts: codes [f, Q] to continue, of any lengths f; with f = 0, speech starts from nothing.
        n_frames: frames of an utterance at most, its prompt included.
        sampling: how tokens are drawn.
        seed: the same seed gives the same codes, on any device as far as rounding goes.
        batch_size: utterances generated side by side.
        context: tokens that the model has learnt to look back over, as `generate` takes it.

    Returns:
        Codes [F, Q] of each utterance, its prompt included.
    """
    device = decoder.embed_tokens.weight.device
    generator = torch.Generator().manual_seed(seed)
    allowed = vocabulary.allowed_mask().to(device)
    utterances = []
    progress = tqdm(total=len(prompts), desc="generating", unit="utterance")
    for start in range(0, len(prompts), batch_size):
        batch = [opening_tokens(vocabulary, codes) for codes in prompts[start : start + batch_size]]
        lengths = torch.tensor([len(tokens) for tokens in batch])
        padded = pad_sequence(batch, batch_first=True, padding_value=Special.PAD).to(device)
        n_new = n_frames * vocabulary.n_codebooks + 1 - int(lengths.min())
        steps = list(
            generate(decoder, padded, n_new, sampling, allowed, Special.EOS, generator, lengths, context=context)
        )
        new = torch.stack(steps, dim=1).cpu() if steps else padded[:, :0].cpu()
        rows = [torch.cat((tokens, drawn)) for tokens, drawn in zip(batch, new, strict=True)]
        utterances += [vocabulary.tokens_to_codes(row)[:n_frames] for row in rows]
        progress.update(len(batch))
    progress.close()
    return utterances
