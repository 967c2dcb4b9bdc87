from dataclasses import replace

import pytest
import torch

from lightning_modules.model.configuration import DecoderConfig
from lightning_modules.model.decoder import Decoder
from lightning_modules.model.document_borders import DocumentBorders

on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="the kernel needs a GPU")


def test_documents_of_all_rows_lie_end_to_end_and_padding_is_one_of_them() -> None:
    document_ids = torch.tensor([[0, 0, 0, 1, 1], [1, 1, 4, -1, -1]])
    offsets, longest = DocumentBorders.of(document_ids, room=(1, 1))
    assert offsets.tolist() == [0, 3, 5, 7, 8, 10, 10, 10, 10]
    assert offsets.dtype == torch.int32
    assert longest == 4


def test_room_once_found_serves_smaller_batches() -> None:
    many = DocumentBorders.of(torch.arange(40)[None])
    assert many.room == (64, 128)
    few = DocumentBorders.of(torch.zeros(2, 300, dtype=torch.long), many.room)
    assert few.room == (64, 512)
    assert few.offsets[:3].tolist() == [0, 300, 600]
    assert set(few.offsets[3:].tolist()) == {600}


@on_gpu
@pytest.mark.parametrize(("rope", "value"), [(64, 128), (16, 48)])
def test_one_kernel_attends_as_the_mask_does(tiny_config: DecoderConfig, rope: int, value: int) -> None:
    config = replace(
        tiny_config, qk_rope_head_dim=rope, qk_nope_head_dim=2 * rope, v_head_dim=value, num_nextn_predict_layers=1
    )
    decoder = Decoder(config)
    decoder.initialize_weights(0)
    decoder = decoder.to("cuda", torch.bfloat16)
    document_ids = torch.tensor([0] * 70 + [1] * 300 + [2] * 1 + [-1] * 29).repeat(2, 1)
    document_ids[1, :100] = 7
    tokens = torch.randint(config.vocab_size, (2, 401), device="cuda")
    real = (document_ids >= 0).cuda()

    def losses_and_gradients(borders: DocumentBorders | None) -> list[torch.Tensor]:
        decoder.zero_grad()
        output = decoder(tokens, document_ids.cuda(), None, borders)
        logits = torch.stack([output.logits, *output.ahead_logits])[:, real].float()
        logits.logsumexp(dim=-1).sum().backward()
        return [logits.detach(), *(p.grad.float() for p in decoder.parameters() if p.grad is not None)]

    borders = DocumentBorders.of(document_ids)
    by_kernel = losses_and_gradients(borders._replace(offsets=borders.offsets.cuda()))
    for found, expected in zip(by_kernel, losses_and_gradients(None), strict=True):
        assert (found - expected).norm() <= 0.02 * expected.norm() + 1e-5
