"""A disk that takes as long as the test wants."""

import threading
from pathlib import Path

import pytest
import torch

from lightning_modules.parallel.background_saves import BackgroundSaves, CheckpointError, copy_to_cpu
from lightning_modules.parallel.checkpoint_io import CheckpointFiles


class SlowDisk:
    """Writes names into a list, none of them before it may."""

    def __init__(self) -> None:
        self.may_write = threading.Event()
        self.written: list[str] = []

    def write(self, name: str) -> None:
        assert self.may_write.wait(60)
        self.written.append(name)


def test_two_saves_at_once_do_not_wait_for_one_another_nor_training_for_them() -> None:
    disk, saves = SlowDisk(), BackgroundSaves()
    saves.save(Path("best"), lambda: disk.write("best"))
    saves.save(Path("step"), lambda: disk.write("step"))
    saves.afterwards(lambda: disk.write("removal of older ones"))
    assert disk.written == []
    disk.may_write.set()
    saves.wait()
    assert disk.written == ["best", "step", "removal of older ones"]


def test_a_third_waits_for_room_since_each_is_a_copy_in_memory(caplog: pytest.LogCaptureFixture) -> None:
    disk, saves = SlowDisk(), BackgroundSaves()
    for name in ("best", "step"):
        saves.save(Path(name), lambda name=name: disk.write(name))
    third = threading.Thread(target=saves.save, args=(Path("third"), lambda: disk.write("third")))
    third.start()
    third.join(timeout=0.2)
    assert third.is_alive()
    disk.may_write.set()
    third.join()
    saves.wait()
    assert disk.written == ["best", "step", "third"]
    assert "asked for faster than the disk takes them; raise trainer.checkpoint_every_steps" in caplog.text


def test_a_failure_is_told_at_the_next_save_or_at_the_end_and_those_after_it_are_written() -> None:
    disk, saves = SlowDisk(), BackgroundSaves()

    def full() -> None:
        disk.write("a part")
        raise OSError("No space left on device")

    saves.save(Path("best"), full)
    saves.save(Path("step"), lambda: disk.write("step"))
    disk.may_write.set()
    with pytest.raises(CheckpointError, match="best could not be written: OSError: No space left on device. The one"):
        saves.wait()
    assert disk.written == ["a part", "step"]
    saves.wait()


def test_a_copy_does_not_follow_the_tensors_and_shares_memory_as_they_do() -> None:
    weight = torch.zeros(4)
    values = {"state_dict": {"embedding": weight, "head": weight}, "steps": [1, (2, weight[1:])]}
    copy = copy_to_cpu(values)
    weight.fill_(1.0)
    assert copy["state_dict"]["embedding"].tolist() == [0.0] * 4
    assert copy["steps"][1][1].tolist() == [0.0] * 3
    embedding, head = copy["state_dict"].values()
    assert embedding.untyped_storage().data_ptr() == head.untyped_storage().data_ptr()


def test_a_save_that_fails_leaves_no_half_written_file(tmp_path: Path) -> None:
    files = CheckpointFiles()
    files.save_checkpoint({"bad": lambda: None}, tmp_path / "step.ckpt")
    with pytest.raises(CheckpointError):
        files.saves.wait()
    assert list(tmp_path.iterdir()) == []
