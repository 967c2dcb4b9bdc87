"""Which optimizer steps are written down."""

import lightning as L  # noqa: N812


def is_logged(trainer: L.Trainer) -> bool:
    """Whether Lightning passes the metrics of the step that was just done to the loggers.

    What a GPU has computed is read for these alone: reading waits until the GPU has come so far.
    """
    return trainer.global_step % trainer.log_every_n_steps == 0  # type: ignore[attr-defined]
