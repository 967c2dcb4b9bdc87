"""Speech on its way to a client: nothing is sent before there is something to be heard, and a client may leave."""

import asyncio
import contextlib
from collections.abc import Iterator

import numpy as np
from starlette.concurrency import iterate_in_threadpool
from starlette.types import Receive, Scope, Send

from pipeline.audio.wav_stream import pcm16, wav_stream_header
from pipeline.serving.engine_thread import SpeechFailedError, Utterance
from pipeline.serving.errors import RequestError

TYPES = {"wav": "audio/wav", "pcm": "audio/pcm"}


class SpeechResponse:
    """Answers with audio as it comes, or with an error where none has come yet.

    Args:
        utterance: what is spoken; it is left when the client leaves.
        audio: its audio, blocks of samples [s], waited for in a thread.
        sample_rate: in Hz.
        response_format: one of `TYPES`.
        headers: more of them.
    """

    def __init__(
        self,
        utterance: Utterance,
        audio: Iterator[np.ndarray],
        sample_rate: int,
        response_format: str,
        headers: dict[str, str],
    ) -> None:
        self.utterance = utterance
        self.audio = audio
        self.head = wav_stream_header(sample_rate) if response_format == "wav" else b""
        self.headers = {
            "content-type": TYPES[response_format],
            "x-sample-rate": str(sample_rate),
            "cache-control": "no-store",
            **headers,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send, until the utterance ends or the client leaves."""
        speaking = asyncio.create_task(self._speak(scope, receive, send))
        leaving = asyncio.create_task(_until_left(receive))
        try:
            await asyncio.wait((speaking, leaving), return_when=asyncio.FIRST_COMPLETED)
        finally:
            self.utterance.leave()
            leaving.cancel()
            # A thread that waits for a token cannot be cancelled; it has just been let go.
            with contextlib.suppress(asyncio.CancelledError, OSError):
                await (speaking if speaking.done() else _cancelled(speaking))

    async def _speak(self, scope: Scope, receive: Receive, send: Send) -> None:
        blocks = iterate_in_threadpool(self.audio)
        try:
            first = await anext(blocks, np.zeros(0, np.float32))
        except SpeechFailedError as error:
            await RequestError(503, str(error), retry_after=1).response()(scope, receive, send)
            return
        raw = [(name.encode(), value.encode()) for name, value in self.headers.items()]
        await send({"type": "http.response.start", "status": 200, "headers": raw})
        await send(_part(self.head + pcm16(first)))
        async for block in blocks:
            await send(_part(pcm16(block)))
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def _part(body: bytes) -> dict[str, object]:
    return {"type": "http.response.body", "body": body, "more_body": True}


async def _until_left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _cancelled(task: "asyncio.Task[None]") -> None:
    task.cancel()
    await task
