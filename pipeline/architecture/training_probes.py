"""How the decoder starts out, and how it predicts ahead, found out by looking at one."""

import importlib.util

import torch
from torch import Tensor, nn

from lightning_modules.model.decoder import Decoder, PredictionModule


@torch.no_grad()
def prediction_depth(decoder: Decoder) -> int:
    """How many tokens beyond the next a forward pass predicts."""
    tokens = torch.zeros(1, 8 + len(decoder.mtp), dtype=torch.long)
    return len(decoder(tokens).ahead_logits)


@torch.no_grad()
def prediction_inputs(decoder: Decoder) -> str | None:
    """In which order a prediction module joins what the depth before knows with the next token's embedding."""
    if not len(decoder.mtp):
        return None
    module = decoder.mtp[0]
    assert isinstance(module, PredictionModule)
    joined: list[Tensor] = []
    hook = module.eh_proj.register_forward_pre_hook(lambda _, arguments: joined.append(arguments[0]))
    embed = decoder.embed_tokens.weight
    kept = embed[0].clone()
    tokens = torch.tensor([[1] * 7 + [0] * len(decoder.mtp)])
    embed[0] = 0  # the token ahead of the last position: its embedding is zero, the hidden state there is not
    decoder(tokens)
    embed[0] = kept
    hook.remove()
    first, second = joined[0][0, -1].abs().chunk(2)
    return "embedding, hidden" if float(first.max()) == 0 < float(second.max()) else "hidden, embedding"


@torch.no_grad()
def prediction_head(decoder: Decoder) -> str | None:
    """Whether the prediction modules use the decoder's own embedding and head."""
    if not len(decoder.mtp):
        return None
    tokens = torch.zeros(1, 8 + len(decoder.mtp), dtype=torch.long)
    head = decoder.lm_head.weight
    kept = head.clone()
    head.zero_()
    shares_head = all(not logits.any() for logits in decoder(tokens).ahead_logits)
    head.copy_(kept)
    has_embedding = any(isinstance(module, nn.Embedding) for module in decoder.mtp.modules())
    return "shared" if shares_head and not has_embedding else "own"


@torch.no_grad()
def norm_eps(decoder: Decoder) -> float:
    """What RMSNorm adds to the mean square, solved from what it makes of a small input."""
    norm = decoder.norm
    x = torch.full((norm.weight.shape[0],), 1e-3)
    output = (norm(x) / norm.weight)[0].double()
    return float(f"{float((1e-3 / output) ** 2 - 1e-6):.2g}")


def initial_std(decoder: Decoder) -> float:
    """The standard deviation of all initial matrices together."""
    matrices = [parameter.detach().flatten() for parameter in decoder.parameters() if parameter.ndim >= 2]
    return float(f"{float(torch.cat(matrices).std()):.3g}")


def shares_embedding(decoder: Decoder) -> bool:
    """Whether embedding and head are one matrix."""
    return decoder.lm_head.weight is decoder.embed_tokens.weight


def built(module: str) -> str | None:
    """Whether the code base has a module: "built", or None."""
    try:
        return "built" if importlib.util.find_spec(module) is not None else None
    except ModuleNotFoundError:
        return None
