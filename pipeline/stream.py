"""Speech as an export makes it up: to a file, to standard output, or to the sound card.

Ctrl-C ends it; what has been said by then is in the file. How fast it came is told on standard error.

  python -m pipeline.stream seconds=10
  python -m pipeline.stream prompt=clip.wav echo=true to=continued.wav
  python -m pipeline.stream to=speaker
  python -m pipeline.stream to=- | mpv -
"""

from pathlib import Path
from typing import Any

from pipeline.configuration.composed import Folders
from pipeline.entry.command import command
from pipeline.entry.places import require_writable
from pipeline.streaming.configuration import SPEAKER, STANDARD_OUTPUT, read_stream


@command(groups=("evaluate",), config_name="stream")
def main(values: dict[str, Any], folders: Folders) -> None:
    """Speak to where `to` names."""
    config = read_stream(values)
    if config.to not in (STANDARD_OUTPUT, SPEAKER):
        require_writable("to", Path(config.to).parent)
    # Torch and all that stands on it take seconds to import: mistakes are told before.
    from pipeline.streaming.stream import stream

    stream(config, values["seed"])


if __name__ == "__main__":
    main()
