import torch

from benchmarks.decoding.weights import keep_weights_in_fp8
from benchmarks.decoding.workload import compose_decoding
from lightning_modules.model.block_scaled import matrix_of


def test_what_an_export_in_fp8_keeps_so_is_kept_so() -> None:
    workload = compose_decoding(("model=small",), "bf16", 1, 8, 1, fp8_cache=False)
    decoder = workload.build("cpu")
    experts, before = decoder.layers[1].mlp.experts, decoder.layers[1].mlp.experts.down_proj.detach()
    keep_weights_in_fp8(decoder)
    assert matrix_of(experts, "down_proj").values.dtype == torch.float8_e4m3fn
    assert matrix_of(decoder.layers[0].self_attn.o_proj).scales is not None
    assert decoder.lm_head.weight.dtype == decoder.layers[1].mlp.gate.weight.dtype == torch.bfloat16
    torch.testing.assert_close(experts.down_proj, before, rtol=0.07, atol=1e-4)
