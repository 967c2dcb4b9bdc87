import pytest

from benchmarks.rates import Rates
from benchmarks.training.costs import (
    ATTENTION,
    ELEMENTWISE,
    GRADIENT_NORM,
    GROUPED_PRODUCTS,
    OPTIMIZER,
    OTHER_PRODUCTS,
    PARTS,
    PERMUTATION,
    QUANTISATION,
    Cost,
    model_flops,
    step_costs,
)
from benchmarks.training.profile import part_of
from benchmarks.training.workload import compose_workload
from lightning_modules.model.counting import build_on_meta, training_flops_per_token

BENCH_3B = ("model=bench_3b", "trainer.batch_size=2", "trainer.sequence_length=4096", "precision=bf16")


def test_operations_are_those_that_the_model_counts() -> None:
    workload = compose_workload(BENCH_3B, None)
    expected = workload.n_tokens * training_flops_per_token(build_on_meta(workload.decoder), 4096)
    assert model_flops(step_costs(workload, on_gpu=True)) == pytest.approx(
        expected, rel=1e-4
    )  # vectors multiply nothing


def test_documents_cost_attention_alone_less() -> None:
    whole, packed = (step_costs(compose_workload(BENCH_3B, documents), True) for documents in (None, 1024))
    assert packed[ATTENTION].flops == pytest.approx(whole[ATTENTION].flops / 4)
    assert {part for part in whole if whole[part] != packed[part]} == {ATTENTION}


def test_a_prediction_module_costs_a_block_a_projection_and_a_head() -> None:
    without, ahead = (
        step_costs(compose_workload([*BENCH_3B, f"model.num_nextn_predict_layers={depth}"], None), True)
        for depth in (0, 1)
    )
    assert ahead[ATTENTION].flops == pytest.approx(without[ATTENTION].flops * 13 / 12)
    assert ahead[GROUPED_PRODUCTS].flops == pytest.approx(without[GROUPED_PRODUCTS].flops * 12 / 11)
    more = ahead[OTHER_PRODUCTS].flops - without[OTHER_PRODUCTS].flops
    assert more > 6 * 8192 * (8192 * 2048 + 2 * 2048 * 2048)


def test_an_optimizer_step_moves_what_the_types_say() -> None:
    parameters = 3_596_026_880
    bf16 = step_costs(compose_workload(BENCH_3B, None), on_gpu=True)
    assert bf16[OPTIMIZER].bytes == parameters * 28
    assert bf16[GRADIENT_NORM].bytes == parameters * 2
    short = step_costs(compose_workload([*BENCH_3B, "optimizer.moments=bf16"], None), on_gpu=True)
    assert short[OPTIMIZER].bytes == parameters * 20
    fp32 = step_costs(compose_workload([*BENCH_3B, "precision=fp32"], None), on_gpu=False)
    assert fp32[OPTIMIZER].bytes == parameters * 28
    assert fp32[GRADIENT_NORM].bytes == parameters * 4


def test_fp8_halves_the_time_of_what_it_multiplies() -> None:
    rates = Rates(flops_per_second=1e15, bytes_per_second=1e20)
    bf16, fp8 = (
        step_costs(compose_workload([*BENCH_3B, f"precision={kind}"], None), True) for kind in ("bf16", "fp8_deepseek")
    )
    assert fp8[GROUPED_PRODUCTS].milliseconds(rates) == pytest.approx(bf16[GROUPED_PRODUCTS].milliseconds(rates) / 2)
    ratio = fp8[OTHER_PRODUCTS].milliseconds(rates) / bf16[OTHER_PRODUCTS].milliseconds(rates)
    assert 0.5 < ratio < 0.6, "head and routers stay as they are"


def test_the_floor_is_the_longer_of_computing_and_moving() -> None:
    rates = Rates(flops_per_second=1e12, bytes_per_second=1e12)
    assert Cost(flops=2e9, bytes=1e9).milliseconds(rates) == pytest.approx(2.0)
    assert Cost(flops=2e9, fp8_flops=2e9, bytes=1.5e9).milliseconds(rates) == pytest.approx(1.5)


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("cudnn_generated_fort_native_sdpa_sm90_flash_bprop_wgmma_f16_knob_26_64x64x192_1x4x1_cga1x1x1", ATTENTION),
        ("triton_tem_fused_flex_attention_backward_0", ATTENTION),
        ("_ZN7cutlass13device_kernelIN2at4cuda6detail25enable_3x_kernel_for_sm9xINS_4gemm6kernel", GROUPED_PRODUCTS),
        ("nvjet_sm90_tst_256x128_64x4_1x2_h_bz_coopA_NNT", OTHER_PRODUCTS),
        ("quantise_grouped_tiles", QUANTISATION),
        ("multiply_tokens", GROUPED_PRODUCTS),
        ("step", OPTIMIZER),
        ("sum_of_squares", GRADIENT_NORM),
        ("_spread_1", PERMUTATION),
        ("_sum_2", PERMUTATION),
        ("void at_cuda_detail::cub::detail::radix_sort::DeviceRadixSortOnesweepKernel", PERMUTATION),
        ("triton_poi_fused_mul_silu_split_17", ELEMENTWISE),
        ("aten::mm", OTHER_PRODUCTS),
        ("aten::mul", ELEMENTWISE),
    ],
)
def test_kernels_belong_to_parts(name: str, part: str) -> None:
    assert part in PARTS
    assert part_of(name) == part
