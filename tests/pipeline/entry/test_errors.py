"""Which errors are told in a sentence, and which keep their traceback."""

import errno
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.audio.codecs.configuration import codec_settings
from pipeline.entry.errors import sentence_of
from pipeline.plumbing.files import read_json


def error_of(act: Callable[[], object]) -> BaseException:
    with pytest.raises(BaseException) as caught:  # noqa: PT011 - whatever comes
        act()
    return caught.value


def refuse(_: int) -> object:
    return codec_settings({"kind": "nothing"})


def test_a_sentence_of_ours_is_told_as_it_is(tmp_path: Path) -> None:
    assert sentence_of(error_of(lambda: refuse(0))) == (
        "codec.kind=nothing is unknown; known are `mel_rvq`, `mu_law`, `pretrained`."
    )
    missing = sentence_of(error_of(lambda: read_json(tmp_path / "a.json")))
    assert missing == f"{tmp_path}/a.json does not exist; run the stage that writes it first."


def test_a_sentence_survives_a_worker_process() -> None:
    with ProcessPoolExecutor(1) as pool:
        error = error_of(lambda: list(pool.map(refuse, [0])))
    assert str(sentence_of(error)).startswith("codec.kind=nothing is unknown")


@pytest.mark.parametrize(
    "act",
    [
        lambda: [][1],
        lambda: {}["key"],
        lambda: int("abc"),
        lambda: np.ones(2) + np.ones(3),
        lambda: torch.ones(2) @ torch.ones(3),
        lambda: 1 / 0,
    ],
)
def test_a_bug_keeps_its_traceback(act: Callable[[], object]) -> None:
    assert sentence_of(error_of(act)) is None


def test_a_value_error_that_a_library_raises_in_a_line_of_ours_is_a_bug() -> None:
    # `int` fails within our own frame, on a line that raises nothing itself.
    from pipeline.audio.codecs.settings import n_empty_bands

    error = error_of(lambda: n_empty_bands(8000, 512, 40, 0.0, float("nan")))
    assert isinstance(error, ValueError)
    assert sentence_of(error) is None


def test_the_system_s_errors_name_the_file_and_a_remedy(tmp_path: Path) -> None:
    full = sentence_of(OSError(errno.ENOSPC, "No space left on device", "/data/x"))
    assert full is not None
    assert full.startswith("/data/x: No space left on device; free some space")
    readonly = sentence_of(PermissionError(errno.EACCES, "Permission denied", "/data"))
    assert readonly is not None
    assert "choose another place with paths.outputs" in readonly
    assert sentence_of(ConnectionError("no server")) == "no server"


def test_memory_that_ran_out_is_told_with_what_to_lower() -> None:
    asked = error_of(lambda: torch.empty(2**60, dtype=torch.uint8))
    assert "lower trainer.batch_size" in str(sentence_of(asked))
    assert "1152921504606846976 bytes" in str(sentence_of(asked))
    assert "lower trainer.batch_size" in str(sentence_of(MemoryError()))


def test_memory_that_a_recording_ran_out_of_is_told_like_any_other() -> None:
    def record() -> None:
        try:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        finally:
            raise RuntimeError("operation failed due to a previous error during capture")  # what ends a recording

    said = str(sentence_of(error_of(record)))
    assert "when 2.00 GiB more were asked for" in said
    assert "trainer.cuda_graph=false" in said


GLOO = "[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:538] "


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (f"{GLOO}Read error [127.0.0.1]:12685: Connection reset by peer", "Connection reset by peer"),
        (f"{GLOO}Connection closed by peer [10.0.0.7]:4711", "Connection closed by peer [10.0.0.7]:4711"),
        ("NCCL error in: NCCLUtils.cpp:94, ncclRemoteError: A call failed possibly due to a network error", "ncclRemo"),
    ],
)
def test_a_rank_that_is_gone_is_no_fault_of_those_that_are_left(said: str, told: str) -> None:
    sentence = sentence_of(RuntimeError(said))
    assert sentence is not None
    assert sentence.startswith("Another rank has ended (")
    assert told in sentence
    assert sentence_of(RuntimeError(f"{GLOO}Timed out waiting 1800000ms for recv operation to complete")) is None
