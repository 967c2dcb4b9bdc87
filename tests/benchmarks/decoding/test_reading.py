import pytest
import torch
from torch import Tensor

from benchmarks.decoding.reading import step_reading
from benchmarks.decoding.workload import compose_decoding
from lightning_modules.model.counting import build_on_meta, count_parameters

TINY = ("model=tiny", "model.num_nextn_predict_layers=0")


def said(n_rows: int) -> Tensor:
    return torch.randint(200, (n_rows, 12), generator=torch.Generator().manual_seed(0))


def test_one_row_reads_its_active_weights_and_many_rows_nearly_all() -> None:
    alone, many = (compose_decoding(TINY, "fp32", batch, 40, 8, fp8_cache=False) for batch in (1, 64))
    decoder = alone.build("cpu")
    counts = count_parameters(build_on_meta(alone.decoder))
    assert step_reading(decoder, alone, said(1)).weights == pytest.approx(4 * counts.active_without_embedding)
    embedding = decoder.embed_tokens.weight.nbytes
    assert 0.9 < step_reading(decoder, many, said(64)).weights / (4 * counts.total - embedding) <= 1


def test_rows_that_say_the_same_read_fewer_experts() -> None:
    workload = compose_decoding(TINY, "fp32", 16, 2, 8, fp8_cache=False)
    decoder = workload.build("cpu")
    same = step_reading(decoder, workload, said(1).expand(16, -1))
    assert same.share_of_experts < step_reading(decoder, workload, said(16)).share_of_experts <= 1


def test_the_cache_is_read_whole() -> None:
    workload = compose_decoding(TINY, "fp32", 3, 40, 8, fp8_cache=False)
    config = workload.decoder
    width = config.num_hidden_layers * (config.kv_lora_rank + config.qk_rope_head_dim)
    assert step_reading(workload.build("cpu"), workload, said(3)).cache == 4 * width * 3 * 44
