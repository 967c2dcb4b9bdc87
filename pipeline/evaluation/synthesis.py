"""Speech that a decoder makes up, as codes."""

from collections.abc import Sequence

import torch
from torch import Tensor
from tqdm import tqdm

from lightning_modules.model.decoder import Decoder
from lightning_modules.model.generation import generate
from lightning_modules.model.sampling import SamplingConfig
from pipeline.tokens.vocabulary import Special, Vocabulary


def generate_codes(
    decoder: Decoder,
    vocabulary: Vocabulary,
    prompts: Sequence[Tensor],
    n_frames: int,
    sampling: SamplingConfig,
    seed: int,
    batch_size: int,
) -> list[Tensor]:
    """Continue every prompt until its utterance ends, or `n_frames` frames are reached.

    Args:
        decoder: the model, in evaluation mode.
        vocabulary: how codes become tokens.
        prompts: codes [f, Q] to continue, all of one length f; with f = 0, speech starts from nothing.
        n_frames: frames of an utterance at most, its prompt included.
        sampling: how tokens are drawn.
        seed: the same seed gives the same codes.
        batch_size: utterances generated side by side.

    Returns:
        Codes [F, Q] of each utterance, its prompt included.
    """
    generator = torch.Generator().manual_seed(seed)
    allowed = vocabulary.allowed_mask()
    utterances = []
    progress = tqdm(total=len(prompts), desc="generating", unit="utterance")
    for start in range(0, len(prompts), batch_size):
        batch = torch.stack([vocabulary.codes_to_tokens(codes) for codes in prompts[start : start + batch_size]])
        prompt = torch.cat((torch.full((len(batch), 1), Special.BOS), batch), dim=1)
        n_new = n_frames * vocabulary.n_codebooks - batch.shape[1]
        steps = generate(decoder, prompt, n_new, sampling, allowed, Special.EOS, generator)
        rows = torch.cat((prompt, *(tokens[:, None] for tokens in steps)), dim=1)
        utterances += [vocabulary.tokens_to_codes(row) for row in rows]
        progress.update(len(batch))
    progress.close()
    return utterances
