"""Which optimizer steps are written down."""

import lightning as L  # noqa: N812


def is_logged(trainer: L.Trainer, step: int) -> bool:
    """Whether Lightning passes the metrics of the `step`-th optimizer step, from 1, to the loggers.

    Only then are they computed, read from a GPU, which waits until it has come so far, and given to Lightning, which
    goes over all metrics whenever it is given one.
    """
    return step % trainer.log_every_n_steps == 0  # type: ignore[attr-defined]
