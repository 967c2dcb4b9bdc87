"""Rows that ranks share, by a single rank that has both runs of them, and by the parts of several laid together."""

import copy

import pytest
import torch
from torch import Tensor

from lightning_modules.model.attention_inputs import document_beginnings
from lightning_modules.model.decoder import Decoder
from lightning_modules.model.document_borders import DocumentBorders
from lightning_modules.model.shared_rows import run_within_borders, run_within_spans
from lightning_modules.model.token_loss import IGNORED_TARGET
from tests.lightning_modules.model.kept_bytes import kept_bytes
from tests.lightning_modules.model.shared_with_nobody import SharedWithNobody


@pytest.fixture
def document_ids() -> Tensor:
    """Two rows of 24: documents that begin and end within runs and with them, one of a single token, padding."""
    lengths = ([3, 1, 8, 9, 3], [16, 8])
    rows = [torch.repeat_interleave(torch.arange(len(row)), torch.tensor(row)) for row in lengths]
    ids = torch.stack(rows)
    ids[0, -3:] = -1
    return ids


@pytest.mark.parametrize("n_ranks", [1, 2, 3])
def test_parts_of_all_ranks_make_the_rows(n_ranks: int) -> None:
    rows = torch.arange(2 * 26 * 5).view(2, 26, 5)
    ranks = [SharedWithNobody(rank, n_ranks) for rank in range(n_ranks)]
    parts = [rank.own(rows, lookahead=2) for rank in ranks]
    length = 24 // (2 * n_ranks)
    assert all(part.shape == (4, length + 2, 5) for part in parts)
    assert torch.equal(ranks[0].joined(torch.cat([part[:, :length] for part in parts])), rows[:, :24])
    for rank, part in zip(ranks, parts, strict=True):
        for start, of_run in zip(rank.starts(24), part.unflatten(0, (2, 2)).unbind(dim=1), strict=True):
            assert torch.equal(of_run, rows[:, start : start + length + 2])


@pytest.mark.parametrize("start", [0, 6, 12, 18])
def test_borders_and_masks_show_the_same(document_ids: Tensor, start: int) -> None:
    borders = DocumentBorders.of(document_ids)
    run = run_within_borders(borders, 2, 24, start, 6)
    spans = run_within_spans(document_beginnings(document_ids), start, 6).spans
    assert spans is not None
    assert run.borders is not None
    assert run.key_borders is not None
    shown = torch.zeros(2 * 6, 2 * run.stop, dtype=torch.bool)
    queries, keys = run.borders.offsets.tolist(), run.key_borders.offsets.tolist()
    assert (queries[-1], keys[-1]) == (12, 2 * run.stop)
    for begin, end, first_key, last_key in zip(queries, queries[1:], keys, keys[1:], strict=False):
        assert end - begin <= min(run.borders.longest, last_key - first_key)
        for query in range(begin, end):
            # The last query sees the last key.
            shown[query, first_key : last_key - (end - 1 - query)] = True
    wanted = torch.block_diag(*spans.seen(0, 6)[:, 0].int()).bool()
    assert torch.equal(shown, wanted)


@pytest.mark.parametrize("changes", [{}, {"num_nextn_predict_layers": 2, "qk_rope_head_dim": 0}])
@pytest.mark.parametrize(("packed", "recompute"), [(True, "none"), (False, "activations"), (False, "blocks")])
def test_losses_are_those_of_whole_rows(build_decoder, document_ids: Tensor, changes: dict, packed, recompute) -> None:
    decoder: Decoder = build_decoder(**changes)
    shared = copy.deepcopy(decoder)
    shared.shared_rows, shared.recompute = SharedWithNobody(0, 1), recompute
    depth = len(decoder.mtp)
    tokens = torch.randint(0, 40, (2, 24 + depth), generator=torch.Generator().manual_seed(0))
    targets = [torch.randint(0, 40, (2, 24)).masked_fill(document_ids < 0, IGNORED_TARGET) for _ in range(1 + depth)]
    found = []
    for model in (decoder, shared):
        losses = model.losses(tokens, targets, document_ids if packed else None)
        torch.stack(losses.sums).sum().backward()
        found.append(losses)
    whole, halves = found
    torch.testing.assert_close(halves.sums, whole.sums)
    assert halves.n_targets == whole.n_targets
    for (name, parameter), other in zip(decoder.named_parameters(), shared.parameters(), strict=True):
        scale = float(parameter.grad.abs().max())
        torch.testing.assert_close(other.grad, parameter.grad, rtol=0, atol=1e-5 * scale, msg=name)


def test_keys_and_values_are_not_kept(build_decoder) -> None:
    decoder = build_decoder(num_attention_heads=8, qk_nope_head_dim=32, v_head_dim=48, qk_rope_head_dim=16)
    shared = copy.deepcopy(decoder)
    shared.shared_rows = SharedWithNobody(0, 1)
    tokens = torch.randint(0, 40, (2, 128 + len(decoder.mtp)))
    (plain, _), (lean, _) = kept_bytes(decoder, tokens), kept_bytes(shared, tokens)
    keys_and_values = 2 * 128 * 8 * (32 + 16 + 48) * 4
    assert plain - lean > 0.8 * keys_and_values * len(decoder.blocks())
