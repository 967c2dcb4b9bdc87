"""What attention of this rank's part of shared rows goes by."""

import torch
from torch import Tensor

from lightning_modules.model.attention_inputs import AttentionInputs, document_beginnings
from lightning_modules.model.configuration import DecoderConfig
from lightning_modules.model.document_borders import DocumentBorders
from lightning_modules.model.rotary import rotary_cos_sin
from lightning_modules.model.shared_rows import Run, SharedRows, Sharing, run_within_borders, run_within_spans


def shared_inputs(
    config: DecoderConfig,
    rows: SharedRows,
    document_ids: Tensor,
    positions: Tensor | None = None,
    borders: DocumentBorders | None = None,
) -> AttentionInputs:
    """Attention from this rank's part to whole rows, within documents.

    Args:
        config: the decoder's architecture.
        rows: how they are shared.
        document_ids: [B, T] of whole rows; equal numbers side by side are one document.
        positions: [B, T] of each token in its document; None counts from where the document begins in its row.
        borders: of the same documents, on a GPU, in 16 bits; None: spans of this rank's tokens.
    """
    n_rows, n_tokens = document_ids.shape
    first = document_beginnings(document_ids)
    if positions is None:
        positions = torch.arange(n_tokens, device=first.device) - first
    key_cos, key_sin = rotary_cos_sin(positions, config)
    starts, length = rows.starts(n_tokens), n_tokens // (2 * rows.n_ranks)

    def run(start: int) -> Run:
        if borders is None:
            return run_within_spans(first, start, length)
        return run_within_borders(borders, n_rows, n_tokens, start, length)

    sharing = Sharing(rows, (run(starts[0]), run(starts[1])))
    return AttentionInputs(rows.own(key_cos), rows.own(key_sin), None, key_cos, key_sin, sharing=sharing)
