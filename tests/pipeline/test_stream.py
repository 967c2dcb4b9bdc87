"""The command `stream`, as it is typed."""

import io
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import soundfile

from pipeline.audio.reading import read_audio
from tests.pipeline.conftest import Told
from tests.speaking_export import noise_codec, talkative_decoder, write_speaking_export

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_speaking_export(tmp_path_factory.mktemp("speaking") / "export", talkative_decoder(), noise_codec())


def started(*arguments: str, **streams: object) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "pipeline.stream", "top_k=1", *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, cwd=REPOSITORY, env=environment, stderr=subprocess.PIPE, **streams)


def test_a_file_holds_what_was_asked_for_and_how_fast_it_came_is_told(
    typed: Callable[..., Told], export: Path, tmp_path: Path
) -> None:
    status, output, told = typed("stream", "top_k=1", f"export={export}", f"to={tmp_path}/speech.wav", "seconds=0.5")
    assert (status, output) == (0, ""), told
    audio, sample_rate = read_audio(tmp_path / "speech.wav")
    assert (sample_rate, len(audio)) == (8000, round(0.5 * 125) * 64)
    assert re.fullmatch(
        r"0\.50 s of speech in [\d.]+ s \(real-time factor [\d.]+\), the first of it after [\d.]+ s; 124 tokens, "
        r"\d+ a second; cache 0\.02 MiB, 192 bytes a token\. Wrote .*/speech\.wav\.\n",
        told,
    ), told


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_leaves_a_file_with_all_that_was_said(export: Path, tmp_path: Path, number: int) -> None:
    process = started(f"export={export}", f"to={tmp_path}/speech.wav", "seconds=3600")
    while not any(path.stat().st_size > 10_000 for path in tmp_path.glob(".*.partial.wav")):
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.05)
    process.send_signal(number)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 0, told
    assert f"Wrote {tmp_path}/speech.wav." in told.decode()
    audio, _ = read_audio(tmp_path / "speech.wav")
    assert len(audio) > 4000
    assert [path.name for path in tmp_path.iterdir()] == ["speech.wav"]


def test_standard_output_carries_a_wav_stream_and_may_be_closed(export: Path) -> None:
    process = started(f"export={export}", "to=-", "seconds=3600", stdout=subprocess.PIPE)
    heard = process.stdout.read(44 + 2 * 3000)
    process.stdout.close()
    told = process.stderr.read().decode()
    assert process.wait() == 0
    assert told.startswith("0.")
    assert told.count("\n") == 1
    audio, sample_rate = soundfile.read(io.BytesIO(heard))
    assert (len(audio), sample_rate) == (3000, 8000)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["export=nowhere"], "ERROR: export is nowhere, which does not exist; make it with"),
        (["to=speech.txt"], "ERROR: to is 'speech.txt'; it takes a file that ends in .wav, .flac"),
        (["device=tpu"], "ERROR: device is 'tpu'; choose one of auto, cpu, cuda."),
        (["seconds=-1"], "ERROR: seconds is -1; it must be positive."),
        (["prompt=nowhere.wav"], "ERROR: prompt=nowhere.wav: the file does not exist; give"),
        (["second=1"], "ERROR: second is not a setting; did you mean `seconds`"),
    ],
)
def test_what_cannot_be_is_named(typed: Callable[..., Told], export: Path, arguments: list[str], words: str) -> None:
    status, output, told = typed("stream", f"export={export}", *arguments)
    assert (status, output) == (2, "")
    assert told.startswith(words)
    assert told.count("\n") == 1
