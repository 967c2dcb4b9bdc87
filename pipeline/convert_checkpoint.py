"""Stage 3: a checkpoint of any layout to any other, judged before it takes its place.

Reads the checkpoint of training unless `source` names another, and writes outputs/export unless `target` does.

  python -m pipeline.convert_checkpoint
  python -m pipeline.convert_checkpoint source=old.pt target=export layout=deepseek conversion.dtype=fp8
"""

from typing import Any

from pipeline.configuration.composed import Folders
from pipeline.entry.command import command


@command(groups=("conversion", "model", "tracking", "debug"), writes=("outputs",))
def main(values: dict[str, Any], folders: Folders) -> None:
    """Write `target` from `source`: by default outputs/export from the best checkpoint of training."""
    # Torch and all that stands on it take seconds to import: mistakes are told before.
    from pipeline.conversion.convert import convert_checkpoint

    convert_checkpoint(values, folders)


if __name__ == "__main__":
    main()
