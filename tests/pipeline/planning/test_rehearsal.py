import gc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from unittest import mock

import pytest
import torch
import torch.distributed as dist
from torch.distributed.fsdp import MixedPrecisionPolicy
from torch.distributed.tensor import DTensor
from torch.profiler import ProfilerActivity, profile

from lightning_modules.batch import Batch
from lightning_modules.configuration import OptimizerConfig
from lightning_modules.language_model import LanguageModel
from lightning_modules.model import by_hand
from lightning_modules.parallel import whole_experts
from lightning_modules.parallel.configuration import ParallelConfig
from lightning_modules.parallel.mesh import build_mesh
from lightning_modules.parallel.selection import PAGE
from lightning_modules.parallel.sharding import parallelise
from lightning_modules.precision.kernels import blockwise as kernels
from lightning_modules.precision.plugins import build_precision, working_policy
from lightning_modules.precision.quantised import keep_copies
from lightning_modules.precision.working_weights import WorkingWeights
from lightning_modules.schedule import ScheduleConfig
from pipeline.planning import rehearsal
from pipeline.planning.admission import expert_rows
from pipeline.planning.fake_ranks import local_shard, sharded_decoder, standing_for_rank_0
from pipeline.planning.memory import static_bytes, step_memory
from pipeline.planning.rehearsal import rehearse
from pipeline.planning.settings import Layout, PlannedTraining

ONE = Layout(1, 1, 1, 1)


@contextmanager
def single_rank() -> Iterator[None]:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        yield
    finally:
        dist.destroy_process_group()


def sharded_model(training: PlannedTraining) -> LanguageModel:
    """A real one, as the strategy makes it, with working weights where a GPU would have them."""
    with torch.device("meta"):
        model = LanguageModel(
            training.decoder,
            training.objective,
            OptimizerConfig(1e-3, (0.9, 0.95), 0.1, 1e-8, training.moments),
            ScheduleConfig(0, 1.0, 1.0),
            max_steps=1,
            seed=0,
            recompute=training.recompute,
        )
    plugin = build_precision(training.precision, sharded=True)
    mesh = build_mesh(ParallelConfig(), "cpu", 1)
    policy = MixedPrecisionPolicy() if training.has_working_weights else plugin.fsdp_policy
    parallelise(model.decoder, mesh, policy)
    model.decoder.to_empty(device="cpu")
    model.initialize_weights()
    if training.has_working_weights:
        prepare = partial(parallelise, mesh=mesh, policy=working_policy(sums_again=False))
        model.working_weights = WorkingWeights(model.decoder, prepare)
        model.working_weights.decoder.recompute = training.recompute
    return model


def step(model: LanguageModel, training: PlannedTraining) -> None:
    depth = training.decoder.num_nextn_predict_layers
    tokens = torch.randint(training.decoder.vocab_size, (training.batch_size, training.sequence_length + 1 + depth))
    batch = Batch.whole_step(tokens, torch.zeros_like(tokens), depth)

    def loss() -> torch.Tensor:
        documents = batch.document_ids[:, : batch.n_positions]
        output = model.running_decoder.losses(batch.tokens[:, :-1], batch.targets(), documents)
        return model.objective_loss(output, batch, model.objective.mtp_shares(depth, progress=0.0))[0]

    loss().backward()


def most_allocated(model: LanguageModel, training: PlannedTraining) -> int:
    """Bytes that torch's allocator handed out at most in a step, beyond those before it, as its profiler saw it."""
    # What earlier tests have left would be freed meanwhile.
    gc.collect()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        step(model, training)
    alive = most = 0
    for event in profiler.profiler.kineto_results.events():
        if event.name() == "[memory]":
            alive += event.nbytes()
            most = max(most, alive)
    return most


@pytest.mark.parametrize(
    ("precision", "recompute"), [("bf16", "none"), ("bf16", "activations"), ("bf16", "blocks"), ("fp32", "none")]
)
def test_a_rehearsed_step_allocates_what_a_real_one_does(monkeypatch, training, gpu, precision, recompute):
    training = replace(training, precision=precision, recompute=recompute)
    with mock.patch.object(rehearsal, "ENOUGH_BLOCKS", 100):
        rehearsed = rehearse(training, ONE, replace(gpu, attention="cpu"))
    monkeypatch.setattr(by_hand, "applies_to", lambda _: False)  # as on a GPU
    with single_rank():
        measured = most_allocated(sharded_model(training), training)
    planned = max(segment.peak.total() for segment in rehearsed.segments)
    assert planned == pytest.approx(measured, rel=0.02)


@pytest.mark.parametrize("moments", ["fp32", "bf16"])
def test_what_stays_is_what_a_real_rank_holds(training, gpu, moments):
    training = replace(training, moments=moments, precision="fp32")
    with single_rank():
        model = sharded_model(training)
        optimizer = model.configure_optimizers()["optimizer"]
        step(model, training)
        optimizer.step()
        parameters = list(model.parameters())
        state = [value for values in optimizer.state.values() for name, value in values.items() if name != "step"]
        planned = static_bytes(training, ONE, gpu)
        assert planned["parameters"] == local_bytes(parameters)
        assert planned["working_weights"] == 0
        assert planned["gradients"] == local_bytes([parameter.grad for parameter in parameters])
        assert planned["optimizer"] == local_bytes(state)


@pytest.mark.parametrize("n_accumulated", [1, 2])
def test_working_weights_and_their_gradients_are_those_of_a_real_rank(training, gpu, n_accumulated):
    training = replace(training, accumulate_grad_batches=n_accumulated)
    with single_rank():
        model = sharded_model(training)
        working = model.working_weights
        for _ in range(n_accumulated):
            step(model, training)
            working.hand_over_gradients(accumulates=n_accumulated > 1)
        planned = static_bytes(training, ONE, gpu)
        assert planned["working_weights"] == local_bytes([weight for _, weight in working.pairs])
        assert planned["gradients"] == local_bytes([master.grad for master, _ in working.pairs])


@pytest.mark.parametrize("layout", [ONE, Layout(1, 1, 4, 4), Layout(1, 2, 2, 4), Layout(1, 2, 1, 2)], ids=str)
@pytest.mark.parametrize("precision", ["fp8_deepseek", "fp8_rowwise"])
def test_quantised_copies_are_those_of_a_real_rank(training, gpu, layout, precision):
    # Sides that the kernels take, and networks that are rounded because they are large.
    sides = {
        "hidden_size": 1024,
        "intermediate_size": 2048,
        "q_lora_rank": 16,
        "kv_lora_rank": 16,
        "qk_nope_head_dim": 16,
        "qk_rope_head_dim": 16,
        "v_head_dim": 16,
    }
    training = replace(training, precision=precision, decoder=replace(training.decoder, **sides))
    with standing_for_rank_0(layout.world_size), mock.patch.object(kernels, "available", return_value=True):
        decoder = sharded_decoder(training, layout)
        keepers = keep_copies(decoder)
    held = sum(copy.nbytes for keeper in keepers for copy in keeper.copies)
    # Experts that keep copies have nothing else.
    held += sum(local_shard(weight).untyped_storage().nbytes() for weight in decoder.parameters())
    assert static_bytes(training, layout, gpu)["working_weights"] == pytest.approx(held, rel=1e-3)


def test_an_average_takes_as_much_as_the_parameters(training, gpu):
    planned = static_bytes(replace(training, averages_beside=True), Layout(1, 2, 4, 8), gpu)
    assert planned["average"] == planned["parameters"]


def local_bytes(tensors: list[torch.Tensor]) -> int:
    return sum((t.to_local() if isinstance(t, DTensor) else t).nbytes for t in tensors)


@pytest.mark.parametrize(
    ("layout", "recompute"),
    [(ONE, "none"), (Layout(1, 2, 2, 4), "activations"), (Layout(1, 2, 2, 4), "blocks"), (ONE, "blocks_offloaded")],
    ids=str,
)
def test_few_blocks_stand_for_many(training, gpu, layout, recompute):
    training = replace(training, recompute=recompute)
    shallow = step_memory(training, layout, gpu, rehearse(training, layout, gpu))
    with mock.patch.object(rehearsal, "ENOUGH_BLOCKS", 100):
        deep = step_memory(training, layout, gpu, rehearse(training, layout, gpu))
    assert shallow.fullest.phase == deep.fullest.phase
    # Losses hold routers' scores of rehearsed blocks alone; of blocks this narrow that is a share one sees.
    assert shallow.fullest.total == pytest.approx(deep.fullest.total, rel=2e-3)
    assert shallow.activations == pytest.approx(deep.activations, rel=1e-3)


def test_whole_experts_take_turns_in_as_many_places_as_in_training(training, gpu):
    decoder = replace(training.decoder, num_nextn_predict_layers=0)
    layout = Layout(1, 2, 1, 2)
    training = replace(training, decoder=decoder)
    parts = step_memory(training, layout, gpu, rehearse(training, layout, gpu)).fullest.parts
    stacks = 3 * decoder.n_routed_experts * decoder.hidden_size * decoder.moe_intermediate_size
    assert parts["gathered"] >= whole_experts.N_ROOMS * stacks * training.gathered_bytes


def test_ranks_that_share_windows_keep_their_part(training, gpu):
    # Sides that the kernels take, and heads that are wide against the latent.
    sides = {"num_attention_heads": 8, "qk_nope_head_dim": 16, "qk_rope_head_dim": 8, "v_head_dim": 24}
    decoder = replace(training.decoder, **sides)
    training = replace(training, decoder=decoder, sequence_length=4096, attend_across_documents=True)
    whole, half = (rehearse(training, Layout(1, 1, 1, 4, cp), gpu) for cp in (1, 2))
    # Keys and values of whole windows are expanded, and not kept.
    assert half.kept(1, "forward") < 0.51 * whole.kept(1, "forward")


def test_recorded_steps_keep_room_for_rows(training, gpu):
    layout = Layout(1, 1, 4, 4)
    training = replace(training, dispatch="all_gather")

    def kept(training: PlannedTraining) -> int:
        return step_memory(training, layout, gpu, rehearse(training, layout, gpu)).activations

    unrecorded = replace(training, records_steps=False)
    config, spare = training.decoder, expert_rows(training, layout) - expert_rows(unrecorded, layout)
    # Where rows were unbounded, there is a page more of them than come.
    spare -= PAGE
    # Kept of a row: its token, gate and up projection and their product in BF16; what it counts; its choice.
    a_row = 2 * (config.hidden_size + 3 * config.moe_intermediate_size) + 4 + 8
    n_mixtures = config.num_hidden_layers - config.first_k_dense_replace + config.num_nextn_predict_layers
    assert kept(training) - kept(unrecorded) == pytest.approx(n_mixtures * spare * a_row, rel=0.02)


def test_experts_in_fp8_are_gathered_for_whole_tokens(training, gpu):
    # Sides that the kernels take, and experts that are sharded beside being spread.
    decoder = replace(training.decoder, hidden_size=128, moe_intermediate_size=128)
    training = replace(training, decoder=decoder, precision="fp8_deepseek", dispatch="all_gather")
    assert rehearse(training, Layout(1, 2, 2, 4), gpu).segments


def test_recompute_and_fp8_keep_less(training, gpu):
    # FP8 kernels fill tiles of 128 rows for each expert: it takes some rows to save by them, of whole tiles' width.
    decoder = replace(
        training.decoder,
        num_hidden_layers=2,
        first_k_dense_replace=1,
        num_nextn_predict_layers=0,
        moe_intermediate_size=128,
    )
    training = replace(training, decoder=decoder, sequence_length=512, batch_size=4)

    def kept(**changes: object) -> int:
        changed = replace(training, **changes)
        return step_memory(changed, ONE, gpu, rehearse(changed, ONE, gpu)).activations

    plain = kept()
    assert kept(recompute="activations") < 0.8 * plain
    assert kept(precision="fp8_deepseek") < plain
    # A mask for each layer, as a bias of the queries' type.
    mask = training.batch_size * training.sequence_length**2 * 2
    assert plain - kept(attend_across_documents=True) == pytest.approx(2 * mask, rel=0.1)


def test_accumulation_keeps_whole_gradients(training, gpu):
    layout = Layout(1, 2, 4, 8)
    once, accumulated = (
        static_bytes(replace(training, accumulate_grad_batches=n), layout, gpu)["gradients"] for n in (1, 4)
    )
    # Dense ones are split over eight ranks otherwise, those of experts here over two.
    assert 2 * once < accumulated < 8 * once
