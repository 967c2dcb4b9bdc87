"""Do source and target say the same about real tokens?"""

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_modules.model.decoder import Decoder
from pipeline.conversion.check import FAIL, PASS, Check
from pipeline.conversion.survey import TensorFacts
from pipeline.tokens.dataset import TokenDataset

NAME = "logits"
N_DOCUMENTS, MAX_TOKENS = 4, 512
# Mean Kullback-Leibler divergence of the target's predictions from the source's, in nats a token, by the coarsest type
# that weights have been rounded to.
BOUNDS = {"bfloat16": 1e-3, "float8_e4m3fn": 2e-2}


@torch.inference_mode()
def predict(decoder: Decoder, documents: TokenDataset) -> Tensor:
    """Logits [tokens, V] of the first held-out documents."""
    rows = [torch.from_numpy(documents[i])[None, :MAX_TOKENS] for i in range(min(N_DOCUMENTS, len(documents)))]
    return torch.cat([decoder.next_token_logits(row)[0][0] for row in rows])


def check_logits(source: Tensor, target: Tensor, facts: Mapping[str, TensorFacts]) -> Check:
    """Compare logits [tokens, V] of the source and the target; `facts` tell what has been rounded.

    Where nothing was, they have to be equal.
    """
    before, after = source.double(), target.double()
    divergence = float(F.kl_div(after.log_softmax(-1), before.log_softmax(-1), log_target=True, reduction="batchmean"))
    agreement = float((before.argmax(-1) == after.argmax(-1)).double().mean())
    largest = float((before - after).abs().max())
    numbers = {"tokens": len(before), "divergence": divergence, "largest_difference": largest, "agreement": agreement}
    rounded = {fact.dtype for fact in facts.values() if fact.relative_error > 0}
    coarsest = next((dtype for dtype in reversed(BOUNDS) if dtype in rounded), None)
    if coarsest is None:
        if largest == 0:
            return Check(NAME, PASS, f"equal on {len(before):,} held-out tokens", numbers)
        return Check(NAME, FAIL, f"they differ by up to {largest:.2g}, though no weight was rounded", numbers)
    bound = BOUNDS[coarsest]
    sentence = (
        f"{divergence:.2g} nats a token apart, {bound:g} allowed for {coarsest}; {agreement:.1%} of choices agree"
    )
    status = PASS if math.isfinite(divergence) and divergence <= bound else FAIL
    return Check(NAME, status, sentence, numbers | {"bound": bound})
