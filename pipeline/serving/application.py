"""The server's addresses: speech, its page, and whether it is well."""

import contextlib
import secrets
import tempfile
from collections.abc import AsyncIterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import anyio.to_thread
import torch
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp
from torch import Tensor

from lightning_modules.model.decoding.engine import Engine
from lightning_modules.model.decoding.generation import steps_ahead
from pipeline.configuration.settings import LARGEST_SEED
from pipeline.evaluation.synthesis import opening_tokens
from pipeline.serving.configuration import ServeConfig
from pipeline.serving.engine_thread import BusyError, EngineThread, Utterance
from pipeline.serving.errors import RequestError
from pipeline.serving.speech_request import FORMATS, SpeechRequest, read_request
from pipeline.serving.speech_response import SpeechResponse
from pipeline.streaming.export import SpeakingExport
from pipeline.streaming.prompt import read_prompt
from pipeline.streaming.speech import row_seed, stream_audio, stream_codes
from pipeline.tokens.vocabulary import Special

# After which a client that found no place may ask again.
RETRY_SECONDS = 2
PAGE = {
    "/": "page.html",
    **{f"/{name}": name for name in ("page.css", "page.js", "player.js", "recorder.js", "wav.js")},
}
TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript"}
# The page is of this server alone, and nothing else reaches it.
PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "media-src blob:; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
LOCAL_NAMES = ("127.0.0.1", "localhost", "::1", "[::1]")


class SpeechServer:
    """An export that speaks to several clients at once.

    Args:
        export: what speaks.
        config: how much clients may ask for.
    """

    def __init__(self, export: SpeakingExport, config: ServeConfig) -> None:
        self.export, self.config, self.limits = export, config, config.limits
        device = export.decoder.embed_tokens.weight.device
        self.engine = EngineThread(self._build_engine, self.limits.waiting, steps_ahead(device))

    def application(self) -> ASGIApp:
        """All addresses, as an ASGI application; the engine runs as long as it does."""
        routes = [
            Route("/v1/audio/speech", self.speech, methods=["POST"]),
            Route("/health", self.health),
            *(Route(path, _page(name)) for path, name in PAGE.items()),
        ]
        # A name that another site lets point here is not one of ours: its pages stay strangers.
        hosts = [*LOCAL_NAMES, self.config.host] if self.config.is_local else ["*"]
        return Starlette(
            routes=routes,
            middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=hosts)],
            exception_handlers={RequestError: _tell, HTTPException: _tell_of_http},
            lifespan=self._lifespan,
        )

    @contextlib.asynccontextmanager
    async def _lifespan(self, application: Starlette) -> AsyncIterator[None]:
        # Each utterance, spoken or waiting, has a thread that waits for its tokens and makes audio of them.
        anyio.to_thread.current_default_thread_limiter().total_tokens += self.limits.rows + self.limits.waiting
        self.engine.start()
        try:
            yield
        finally:
            await anyio.to_thread.run_sync(self.engine.close)

    async def speech(self, request: Request) -> SpeechResponse:
        """Speak."""
        asked = await read_request(request, self.limits)
        prompt = await anyio.to_thread.run_sync(self._encode, asked)
        seed = secrets.randbelow(LARGEST_SEED + 1) if asked.seed is None else asked.seed
        export = self.export
        n_new = export.n_frames(asked.seconds) * export.vocabulary.n_codebooks
        utterance = Utterance(opening_tokens(export.vocabulary, prompt), n_new, row_seed(seed))
        try:
            self.engine.submit(utterance)
        except BusyError:
            raise RequestError(
                503,
                "All rows are taken, and all places to wait for one; ask again a little later.",
                None,
                RETRY_SECONDS,
            ) from None
        frames = stream_codes(export.vocabulary, utterance.tokens())
        audio = stream_audio(export.codec, prompt, frames, asked.echo)
        return SpeechResponse(utterance, audio, export.codec.sample_rate, asked.response_format, {"x-seed": str(seed)})

    async def health(self, request: Request) -> JSONResponse:
        """What the server does, and what it may be asked for."""
        n_speaking, n_waiting = self.engine.counts()
        return JSONResponse(
            {
                "status": "ok",
                "speaking": n_speaking,
                "waiting": n_waiting,
                "rows": self.limits.rows,
                "sample_rate": self.export.codec.sample_rate,
                "max_seconds": self.limits.max_seconds,
                "max_prompt_seconds": self.limits.max_prompt_seconds,
                "max_upload_mib": self.limits.max_upload_mib,
                "response_formats": FORMATS,
            }
        )

    def _build_engine(self) -> Engine:
        export, limits = self.export, self.limits
        n_frames = export.n_frames(limits.max_seconds) + export.n_frames(limits.max_prompt_seconds) + 1
        capacity = 1 + n_frames * export.vocabulary.n_codebooks
        return Engine(
            export.decoder,
            limits.rows,
            capacity,
            self.config.sampling,
            export.allowed().to(export.decoder.embed_tokens.weight.device),
            Special.EOS,
            context=export.context if capacity > export.context else None,
        )

    def _encode(self, asked: SpeechRequest) -> Tensor:
        """The codes [F, Q] of the prompt.

        Raises:
            RequestError: when it is no recording of speech, or too long.
        """
        if asked.prompt is None:
            return torch.zeros(0, self.export.codec.n_codebooks, dtype=torch.long)
        with tempfile.TemporaryDirectory(prefix="melisma-") as folder:
            path = Path(folder, "prompt")
            path.write_bytes(asked.prompt)
            try:
                return read_prompt(path, self.export.codec, "prompt", self.limits.max_prompt_seconds)
            except ValueError as error:
                raise RequestError(400, str(error), "prompt") from None


def _page(name: str) -> Any:
    """What answers with a file of the page, read once."""
    content = files("pipeline.serving").joinpath("page", name).read_text(encoding="utf-8")

    async def answer(request: Request) -> Response:
        return Response(content, media_type=TYPES[name.rpartition(".")[2]], headers=PAGE_HEADERS)

    return answer


async def _tell(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestError)
    return error.response()


async def _tell_of_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == 404:
        message = f"Nothing is at {request.url.path[:200]}; speech is at POST /v1/audio/speech, and a page at /."
    else:
        message = f"{error.detail}: {request.method} {request.url.path[:200]}."
    response = RequestError(error.status_code, message).response()
    response.headers.update(error.headers or {})
    return response
