"""`melisma`: commands by name, and the completion of what is typed."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.entry import console
from pipeline.entry.completion import completions

REPOSITORY = Path(__file__).parents[3]
COMMANDS = list(console.command_lines())


def test_every_command_is_listed_in_a_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["melisma"])
    console.main()
    listed = capsys.readouterr().out.splitlines()
    for path in (REPOSITORY / "pipeline").glob("[a-z]*.py"):
        name = path.stem.replace("_", "-")
        assert any(line.startswith(f"  {name} ") and len(line.split()) > 4 for line in listed), name


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("melisma ev", ["evaluate "]),
        ("melisma ", [f"{name} " for name in COMMANDS]),
        ("melisma train mod", ["model.", "model="]),
        ("melisma train model=ti", ["model=tiny"]),
        ("melisma train -m model=tiny,sm", ["model=tiny,small"]),
        ("melisma train data=_", []),
        ("melisma train optimizer.l", ["optimizer.lr="]),
        ("melisma prepare-data data=folder data.ro", ["data.root="]),
        ("melisma train trainer.anomalies.non", ["trainer.anomalies.nonfinite="]),
        ("melisma plan gpu=h1", ["gpu=h100"]),
        ("melisma plan gpus", ["gpus_per_node="]),
        ("melisma train --tr", ["--traceback "]),
        ("melisma train model=nothing optimizer.l", ["optimizer.lr="]),
    ],
)
def test_completion(line: str, expected: list[str]) -> None:
    assert completions(line, COMMANDS) == expected


def test_an_unknown_command_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["melisma", "trane"])
    with pytest.raises(SystemExit, match="2"):
        console.main()
    assert capsys.readouterr().err.startswith("ERROR: melisma has no command `trane`; known are compare,")


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
def test_bash_completes_through_its_own_completion() -> None:
    script = f"""
melisma() {{ {sys.executable} -m pipeline.entry.console "$@"; }}
eval "$(melisma completion bash)"
COMP_LINE="melisma train model=ti"; COMP_POINT=${{#COMP_LINE}}; _melisma; echo "${{COMPREPLY[@]}}"
"""
    ended = subprocess.run(["bash", "-c", script], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    # What stands before the = stays on the line.
    assert ended.stdout == "tiny\n"
