"""What the command lines of benchmarks over presets have in common."""

import argparse

import torch

from pipeline.configuration.composed import CONF


def preset_parser(program: str, description: str | None) -> argparse.ArgumentParser:
    """A parser that knows a preset of conf/model, and the device that it runs on.

    Args:
        program: the module, as `python -m` takes it.
        description: as it is printed by --help.
    """
    parser = argparse.ArgumentParser(
        prog=f"python -m {program}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    presets = sorted(path.stem for path in (CONF / "model").glob("*.yaml"))
    parser.add_argument("--preset", choices=presets, default="bench_3b", help="a model of conf/model")
    on_gpu = torch.cuda.is_available()
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if on_gpu else "cpu")
    return parser


def count(text: str) -> int:
    """A whole number from 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is no whole number from 1")
    return int(text)
