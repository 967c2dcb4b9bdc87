"""What a step feeds, against `RowState`; under TRITON_INTERPRET=1 without a GPU."""

import os

import pytest
import torch

from lightning_modules.model.decoding.state import RowState

pytest.importorskip("triton")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
if DEVICE == "cpu" and os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip("the kernels run on a GPU or under TRITON_INTERPRET=1", allow_module_level=True)

from lightning_modules.model.kernels.last_tokens import feed_last_tokens  # noqa: E402


def test_rows_feed_their_last_tokens() -> None:
    state = RowState.empty(4, 10, 1, torch.device(DEVICE))
    torch.manual_seed(0)
    state.tokens.random_(100)
    state.lengths.copy_(torch.tensor([1, 5, 10, 7]))
    state.offsets.copy_(torch.tensor([1, 1, 6, 3]))
    for rows in (state, state.first(3)):
        held = torch.full_like(rows.lengths, -1)
        last = feed_last_tokens(rows.tokens, rows.lengths, rows.offsets, held)
        assert torch.equal(last, rows.last_tokens())
        assert torch.equal(held, rows.held())
