"""What the server answers, asked within this process."""

import base64
import io

import numpy as np
import pytest
import soundfile
import torch
from starlette.testclient import TestClient

from pipeline.serving.configuration import ServeConfig
from pipeline.streaming.export import SpeakingExport
from pipeline.streaming.speech import stream_audio, stream_codes, stream_tokens

SPEECH = "/v1/audio/speech"


def recording(seconds: float = 0.5, sample_rate: int = 16_000, kind: str = "FLAC") -> bytes:
    noise = 0.1 * np.random.default_rng(0).standard_normal(round(seconds * sample_rate))
    file = io.BytesIO()
    soundfile.write(file, noise, sample_rate, format=kind)
    return file.getvalue()


def heard(content: bytes) -> np.ndarray:
    audio, sample_rate = soundfile.read(io.BytesIO(content), dtype="float32")
    assert sample_rate == 8000
    return audio


def offline(export: SpeakingExport, config: ServeConfig, prompt: torch.Tensor, n_frames: int, seed: int) -> np.ndarray:
    """What `pipeline.stream` makes of the same prompt and seed."""
    tokens = stream_tokens(export, prompt, n_frames, config.sampling, seed)
    return np.concatenate(list(stream_audio(export.codec, prompt, stream_codes(export.vocabulary, tokens))))


def test_a_seed_says_what_the_command_stream_says_with_it(
    client: TestClient, export: SpeakingExport, config: ServeConfig
) -> None:
    answer = client.post(SPEECH, json={"seconds": 0.4, "seed": 7})
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "audio/wav"
    assert answer.headers["x-seed"] == "7"
    nothing = torch.zeros(0, 2, dtype=torch.long)
    expected = offline(export, config, nothing, 50, 7)
    np.testing.assert_allclose(heard(answer.content), expected.clip(-1, 1), atol=2**-15)
    raw = client.post(SPEECH, json={"seconds": 0.4, "seed": 7, "response_format": "pcm"})
    assert raw.headers["content-type"] == "audio/pcm"
    assert raw.content == answer.content[44:]


def test_a_prompt_comes_as_base64_or_as_it_is(client: TestClient, export: SpeakingExport, config: ServeConfig) -> None:
    prompt = recording()
    in_json = client.post(
        SPEECH, json={"prompt": base64.b64encode(prompt).decode(), "seconds": 0.24, "seed": 2, "response_format": "pcm"}
    )
    assert in_json.status_code == 200, in_json.text
    as_it_is = client.post(
        f"{SPEECH}?seconds=0.24&seed=2&response_format=pcm", content=prompt, headers={"Content-Type": "audio/flac"}
    )
    assert as_it_is.content == in_json.content
    assert len(in_json.content) == 2 * 30 * 64
    echoed = client.post(
        f"{SPEECH}?seconds=0.24&seed=2&echo=true", content=prompt, headers={"Content-Type": "audio/flac"}
    )
    assert len(heard(echoed.content)) == (30 + 63) * 64
    assert client.post(SPEECH, json={"seconds": 0.24, "seed": 2, "response_format": "pcm"}).content != in_json.content


def test_what_openai_s_clients_send_is_taken_where_it_means_nothing_else(client: TestClient) -> None:
    fields = {
        "model": "melisma",
        "voice": "default",
        "input": "",
        "speed": 1.0,
        "response_format": "wav",
        "seconds": 0.1,
    }
    assert client.post(SPEECH, json=fields).status_code == 200


@pytest.mark.parametrize(
    ("fields", "field", "words"),
    [
        ({"input": "Hello"}, "input", 'input may be left out, or be "": the model speaks without text'),
        ({"voice": "nova"}, "voice", 'voice may be left out, or be "default"'),
        ({"second": 3}, "second", "second is no field of a request; did you mean `seconds`"),
        ({"seconds": 21}, "seconds", "seconds is 21; this server speaks for 20 at most."),
        ({"seconds": 0}, "seconds", "seconds is 0; it must be positive."),
        ({"seconds": "long"}, "seconds", "seconds is 'long'; it takes a value of type float."),
        ({"seconds": 1e999}, "seconds", "seconds is inf; it takes a finite number."),
        ({"seed": -1}, "seed", "seed is -1; it takes a whole number from 0 to 4294967295."),
        ({"response_format": "mp3"}, "response_format", "response_format is 'mp3'; choose wav or pcm."),
        ({"echo": True}, "echo", "echo is true, and there is no prompt to be heard"),
        ({"prompt": "%%%"}, "prompt", "prompt is not base64"),
        ({"prompt": "../../etc/passwd"}, "prompt", "prompt is not base64"),
        ({"prompt": 5}, "prompt", "prompt is 5; it takes"),
        ({"prompt": base64.b64encode(b"no audio").decode()}, "prompt", "prompt: not a readable audio file"),
        ({"prompt": base64.b64encode(recording(1.2)).decode()}, "prompt", "prompt: longer than 1 s; give the last"),
    ],
)
def test_what_cannot_be_is_named(client: TestClient, fields: dict, field: str, words: str) -> None:
    import json

    # As Python writes it, infinity included.
    headers = {"Content-Type": "application/json"}
    answer = client.post(SPEECH, content=json.dumps(fields).encode(), headers=headers)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error["message"].startswith(words)
    assert (error["type"], error["param"]) == ("invalid_request_error", field)


@pytest.mark.parametrize(
    ("content", "kind", "status", "words"),
    [
        (b"{", "application/json", 400, "The body is not JSON"),
        (b"[" * 100_000, "application/json", 413, "The body is larger than 0.0625 MiB"),
        (b"[" * 50_000, "application/json", 400, "The body is not JSON"),
        (b"[]", "application/json", 400, "The body is JSON, but no object"),
        (b"", "audio/wav", 400, "prompt: the file is empty"),
        (b"a" * 70_000, "audio/wav", 413, "The body is larger than 0.0625 MiB"),
        # What forms of other sites may send without asking.
        (b"x", "text/plain", 415, "Content-Type is 'text/plain'"),
        (b"x", "multipart/form-data; boundary=x", 415, "Content-Type is 'multipart/form-data'"),
        (b"x", "", 415, "Content-Type is ''"),
    ],
)
def test_bodies_that_are_none_are_refused(
    client: TestClient, content: bytes, kind: str, status: int, words: str
) -> None:
    answer = client.post(SPEECH, content=content, headers={"Content-Type": kind})
    assert answer.status_code == status
    assert answer.json()["error"]["message"].startswith(words)


def test_a_body_of_unknown_length_is_read_no_further_than_the_limit(client: TestClient) -> None:
    n_read = []

    def endless():
        while len(n_read) < 1000:
            n_read.append(1)
            yield b"a" * 10_000

    answer = client.post(SPEECH, content=endless(), headers={"Content-Type": "audio/wav"})
    assert answer.status_code == 413


def test_other_addresses_and_methods_are_told_of(client: TestClient) -> None:
    assert client.get("/nothing").status_code == 404
    assert "speech is at POST /v1/audio/speech" in client.get("/nothing").json()["error"]["message"]
    answer = client.get(SPEECH)
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
    assert client.get("/page/../application.py").status_code == 404


def test_a_name_that_is_not_of_this_machine_is_refused(client: TestClient) -> None:
    assert client.get("/health", headers={"Host": "rebound.example"}).status_code == 400
    assert client.get("/health", headers={"Host": "localhost:8000"}).status_code == 200


def test_health_tells_the_limits(client: TestClient) -> None:
    health = client.get("/health").json()
    assert health["status"] == "ok"
    assert (health["rows"], health["max_seconds"], health["sample_rate"]) == (2, 20.0, 8000)
