"""Stage 4: an export to its loss on held-out speech, and the speech it makes up.

Reads outputs/export and data/prepared, and writes losses, generated speech and its measures to outputs/evaluate.

  python -m pipeline.evaluate
  python -m pipeline.evaluate evaluate.temperature=0.8 evaluate.seconds=10
"""

from typing import Any

from pipeline.configuration.composed import Folders
from pipeline.entry.command import command


@command(groups=("evaluate", "tracking", "debug"), writes=("outputs",))
def main(values: dict[str, Any], folders: Folders) -> None:
    """Write outputs/evaluate from outputs/export and the held-out data."""
    # Torch and all that stands on it take seconds to import: mistakes are told before.
    from pipeline.evaluation.evaluate import evaluate

    evaluate(values, folders)


if __name__ == "__main__":
    main()
