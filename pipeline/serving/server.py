"""The server itself: it listens, says where, and ends when it is asked to, letting speech under way come to its end."""

import contextlib
import signal
import socket
import sys
from pathlib import Path

import torch
import uvicorn

from pipeline.serving.application import SpeechServer
from pipeline.serving.configuration import ServeConfig
from pipeline.streaming.export import load_export

# Seconds that a thread may keep Python's lock while others wait: the engine asks for it hundreds of times a step.
SWITCH_SECONDS = 2e-4
# Connections beside those that speech is streamed over: of the page, of those who ask how the server is.
OTHER_CONNECTIONS = 64


def serve(config: ServeConfig) -> None:
    """Serve until interrupted.

    Args:
        config: who speaks, and where clients find it.

    Raises:
        FileNotFoundError, ValueError: naming the setting that cannot be, and the remedy.
    """
    listener = listen(config.host, config.port)
    with listener:
        export = load_export(Path(config.export), config.device)
        if export.decoder.embed_tokens.weight.device.type == "cpu":
            # The others make audio of what is said. With all of them the model would wait for those.
            torch.set_num_threads(max(1, torch.get_num_threads() // 2))
        sys.setswitchinterval(SWITCH_SECONDS)
        application = SpeechServer(export, config).application()
        server = uvicorn.Server(
            uvicorn.Config(
                application,
                lifespan="on",
                ws="none",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                limit_concurrency=config.limits.rows + config.limits.waiting + OTHER_CONNECTIONS,
                timeout_graceful_shutdown=max(1, round(config.grace_seconds)),
            )
        )
        print(f"Speech is at {address_of(listener)} (Ctrl-C ends).", flush=True)
        # The signal that ended the server comes once more when all is closed.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        with contextlib.suppress(KeyboardInterrupt):
            server.run(sockets=[listener])
        print("Closed.")


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Raises:
        ValueError: when the address is none of this machine's, or somebody listens there; the message names the remedy.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise ValueError(
            f"host is {host} and port {port}, where nobody can listen ({error.strerror}); choose another, or port=0."
        ) from None


def address_of(listener: socket.socket) -> str:
    """Where a browser finds what listens."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"
