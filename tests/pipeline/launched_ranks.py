"""Ranks of a small training, started as torchrun does."""

from pathlib import Path

from tests.pipeline.training import interrupted_training
from tests.ranks import fork_server, free_port

COMMON = [
    "model=tiny", "tracking=none", "trainer.max_steps=10", "trainer.sequence_length=32", "trainer.val_every_steps=5",
    "trainer.log_every_steps=1", "trainer.checkpoint_every_steps=2", "trainer.ema_decay=0.9",
]  # fmt: skip
TWO_RANKS = ["strategy=expert_parallel", "strategy.ep=2", "trainer.batch_size=2"]
ONE_DEVICE = ["strategy=single_device", "trainer.batch_size=1", "trainer.accumulate_grad_batches=4"]


def launch(
    workplace: Path, overrides: list[str], n_ranks: int = 2, interruption: str = "", of_last: tuple[str, ...] = ()
) -> tuple[list[int], str]:
    """Start ranks as torchrun does, the last of which something happens to; return their codes and what they printed.

    `of_last` are overrides of the last one alone. The others are not ended from outside: they have to notice.
    """
    (output := workplace / "output.txt").unlink(missing_ok=True)
    paths = [f"paths.prepared={workplace}/prepared", f"paths.outputs={workplace}/outputs"]
    common = {
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": str(n_ranks),
        "LOCAL_WORLD_SIZE": str(n_ranks), "GROUP_RANK": "0", "TORCHELASTIC_RUN_ID": "tests",
    }  # fmt: skip
    processes = []
    for rank in range(n_ranks):
        is_last = rank == n_ranks - 1
        arguments = (
            [*COMMON, *overrides, *paths, *(of_last if is_last else ())],
            common | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            output,
            interruption if is_last else "",
        )
        processes.append(fork_server().Process(target=interrupted_training.run, args=arguments, daemon=True))
        processes[-1].start()
    for process in processes:
        process.join(timeout=200)
    codes = [process.exitcode for process in processes]
    for process in processes:
        process.kill()
    return codes, output.read_text()
