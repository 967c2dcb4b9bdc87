"""Recorded steps say what steps launched kernel by kernel say, on a GPU, and never wait for it."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch

from lightning_modules.model.decoder import Decoder
from lightning_modules.model.decoding.engine import Engine
from lightning_modules.model.decoding.generation import generate
from lightning_modules.model.decoding.graph import N_WARM_UPS, RecordedSteps
from lightning_modules.model.decoding.speculation import Acceptance
from lightning_modules.model.sampling_configuration import SamplingConfig

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="records CUDA graphs")

N_STEPS = 200
END = 3
SAMPLINGS = [SamplingConfig(temperature=0), SamplingConfig(1.2), SamplingConfig(1.5, top_k=7, top_p=0.9)]


@pytest.fixture
def decoder(build_decoder) -> Decoder:
    return build_decoder().cuda()


def prompt_of(length: int) -> torch.Tensor:
    return torch.randint(0, 40, (length,), generator=torch.Generator().manual_seed(length)).cuda()


def mask() -> torch.Tensor:
    allowed = torch.ones(2, 40, dtype=torch.bool, device="cuda")
    allowed[0, 20:], allowed[1, 10:25] = False, False
    return allowed


@contextmanager
def without_waiting() -> Iterator[None]:
    """Whatever waits for the GPU raises an error."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def conversation(engine: Engine, waits: bool) -> list[list[int]]:
    """What five rows say that come and go; unless `waits`, with steps that must not wait once they are recorded."""
    waiting = [(prompt_of(length), n, 100 + length) for length, n in ((1, 90), (20, 150), (7, 1), (4, 60), (2, 40))]
    rows: dict[int, list[int]] = {}
    said = []
    for step in range(15 * 17):
        if waiting and engine.free_rows and step % 17 == 0:
            prompt, n, seed = waiting.pop(0)
            said.append(rows.setdefault(engine.join([prompt], [n], [seed])[0], []))
        if waits or step % 17 <= N_WARM_UPS:
            engine.step()
        else:
            with without_waiting():
                engine.step()
        for row, tokens, has_ended in engine.read(wait=step % 17 == 16):
            rows[row] += tokens
            if has_ended:
                del rows[row]
    return said


@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("options", [{}, {"fp8_cache": True}, {"end_token": END}])
@pytest.mark.parametrize("speculates", [False, True])
def test_recorded_steps_say_the_same_and_wait_for_nothing(
    decoder, monkeypatch, sampling, options, speculates: bool
) -> None:
    def engine() -> Engine:
        return Engine(decoder, 3, 180, sampling, mask(), acceptance=Acceptance() if speculates else None, **options)

    recorded = conversation(engine(), waits=False)
    monkeypatch.setattr(Decoder, "waits_for_host", True)
    kernel_by_kernel = conversation(engine(), waits=True)
    assert recorded == kernel_by_kernel
    assert len(recorded) == 5


@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("options", [{}, {"context": 24}, {"end_token": END}])
def test_a_gpu_generates_what_a_cpu_does(decoder, sampling, options) -> None:
    prompt, lengths = torch.stack([prompt_of(9)] * 4), torch.tensor([9, 1, 4, 7])
    said = []
    for device in ("cuda", "cpu"):
        generator = torch.Generator().manual_seed(0)
        steps = generate(
            decoder.to(device),
            prompt.to(device),
            N_STEPS,
            sampling,
            mask().to(device),
            generator=generator,
            prompt_lengths=lengths,
            **options,
        )
        said.append(torch.stack(list(steps), dim=1).cpu())
    assert torch.equal(*said)


def test_few_recordings_serve_all_numbers_of_rows() -> None:
    steps = RecordedSteps(lambda n: lambda: None, 6)
    assert [steps.run(n) for n in (1, 3, 2, 1, 4, 5, 6, 3)] == [1, 4, 4, 1, 4, 6, 6, 4]
