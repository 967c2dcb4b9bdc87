from types import SimpleNamespace

from lightning_modules.callbacks.progress_bar import LossProgressBar


def test_the_bar_counts_to_all_micro_batches() -> None:
    bar = LossProgressBar()
    bar._trainer = SimpleNamespace(max_epochs=-1, max_steps=10, global_step=4, num_training_batches=40)
    assert bar.total_train_batches == 40
