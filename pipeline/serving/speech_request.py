"""What a client asks for: a JSON object, or a recording as it is with the rest in the address."""

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request

from pipeline.configuration.settings import LARGEST_SEED, near_matches, read_settings
from pipeline.serving.configuration import Limits
from pipeline.serving.errors import RequestError

FORMATS = ("wav", "pcm")
# Fields that OpenAI's clients send: the one value that means something here, and why no other does.
FIXED: Mapping[str, tuple[Any, str]] = {
    "input": ("", "the model speaks without text, and reads none: leave it empty, and give a recording as `prompt`"),
    "model": ("melisma", "this server has one model alone, of that name"),
    "voice": ("default", "the voice is that of the prompt, or any of those that the model has learnt"),
    "instructions": ("", "the model follows none"),
    "speed": (1, "speech comes as the model says it"),
    "stream_format": ("audio", "audio is all that is streamed"),
}


@dataclass(frozen=True)
class SpeechRequest:
    """What is asked for.

    Attributes:
        prompt: a recording to continue, the bytes of a file; None: speech from nothing.
        seconds: of speech at most, the prompt not counted.
        seed: of the random draws; None: any.
        echo: whether the prompt is heard first.
        response_format: `wav`, a stream of unknown length, or `pcm`, its samples alone.
    """

    prompt: bytes | None = None
    seconds: float = 10.0
    seed: int | None = None
    echo: bool = False
    response_format: str = "wav"

    def __post_init__(self) -> None:
        if self.seconds <= 0:
            raise ValueError(f"seconds is {self.seconds}; it must be positive.")
        if self.seed is not None and not 0 <= self.seed <= LARGEST_SEED:
            raise ValueError(f"seed is {self.seed}; it takes a whole number from 0 to {LARGEST_SEED}.")
        if self.response_format not in FORMATS:
            raise ValueError(f"response_format is '{self.response_format}'; choose {' or '.join(FORMATS)}.")
        if self.echo and self.prompt is None:
            raise ValueError("echo is true, and there is no prompt to be heard; give one, or leave it out.")


async def read_request(request: Request, limits: Limits) -> SpeechRequest:
    """Read a request to speak.

    Its body is a JSON object, the prompt in it in base64; or it is the prompt itself, of type audio/…, and the other
    fields are in the address. Other types are refused, so that no page of another site can make a browser ask: what
    these may send unasked is neither.

    Args:
        request: as it came.
        limits: how much may be asked for.

    Raises:
        RequestError: naming the field that cannot be, and the remedy.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "application/json":
        fields = _json_fields(await _read_body(request, limits.max_upload_bytes))
    elif kind.startswith("audio/") or kind == "application/octet-stream":
        fields = {name: _literal(value) for name, value in request.query_params.items()}
        fields["prompt"] = await _read_body(request, limits.max_upload_bytes)
    else:
        raise RequestError(
            415,
            f"Content-Type is '{kind}'; send application/json, or a recording as audio/wav, audio/flac or the like.",
        )
    return _checked(fields, limits)


async def _read_body(request: Request, max_bytes: int) -> bytes:
    too_large = RequestError(
        413, f"The body is larger than {max_bytes / 2**20:g} MiB; send a shorter prompt.", "prompt"
    )
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > max_bytes:
        raise too_large
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > max_bytes:
            raise too_large
    return bytes(body)


def _json_fields(body: bytes) -> dict[str, Any]:
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError):
        raise RequestError(400, 'The body is not JSON; send an object such as {"seconds": 5}.') from None
    if not isinstance(fields, dict):
        raise RequestError(400, 'The body is JSON, but no object; send one such as {"seconds": 5}.')
    if isinstance(fields.get("prompt"), str):
        try:
            fields["prompt"] = base64.b64decode(fields["prompt"], validate=True)
        except (ValueError, binascii.Error):
            raise RequestError(400, "prompt is not base64; send the bytes of an audio file in it.", "prompt") from None
    return fields


def _literal(value: str) -> Any:
    """A value of the address as JSON has it: numbers and truths as such, everything else as text."""
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


def _checked(fields: dict[str, Any], limits: Limits) -> SpeechRequest:
    for name, (value, reason) in FIXED.items():
        if fields.pop(name, value) != value:
            raise RequestError(400, f"{name} may be left out, or be {json.dumps(value)}: {reason}.", name)
    known = list(SpeechRequest.__dataclass_fields__)
    if unknown := [name for name in fields if name not in known]:
        near = near_matches(unknown[0], [*known, *FIXED])
        raise RequestError(400, f"{unknown[0][:60]} is no field of a request; {near}", unknown[0][:60])
    try:
        asked = read_settings(SpeechRequest, fields, "")
    except ValueError as error:
        raise RequestError(400, str(error), str(error).partition(" ")[0]) from None
    if asked.seconds > limits.max_seconds:
        raise RequestError(
            400, f"seconds is {asked.seconds:g}; this server speaks for {limits.max_seconds:g} at most.", "seconds"
        )
    return asked
