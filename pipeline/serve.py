"""An export that speaks to several clients at once, over HTTP, and a page to try it in a browser.

Listens on this machine alone unless `host` says otherwise; there is no password. Ctrl-C ends it.

  python -m pipeline.serve
  python -m pipeline.serve export=outputs/export_fp8 port=8080 rows=64
  curl -N http://127.0.0.1:8000/v1/audio/speech -H 'Content-Type: application/json' -d '{"seconds": 5}' | mpv -
"""

from typing import Any

from pipeline.configuration.composed import Folders
from pipeline.entry.command import command
from pipeline.serving.configuration import read_serve


@command(groups=("evaluate",), config_name="serve")
def main(values: dict[str, Any], folders: Folders) -> None:
    """Serve until interrupted."""
    # Torch and all that stands on it take seconds to import: mistakes are told before.
    from pipeline.serving.server import serve

    serve(read_serve(values))


if __name__ == "__main__":
    main()
