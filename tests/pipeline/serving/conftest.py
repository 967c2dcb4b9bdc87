from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from starlette.testclient import TestClient

from lightning_modules.model.sampling_configuration import SamplingConfig
from pipeline.serving.application import SpeechServer
from pipeline.serving.configuration import Limits, ServeConfig
from pipeline.streaming.export import SpeakingExport
from tests.speaking_export import VOCABULARY, noise_codec, talkative_decoder

# The end is not among the five most probable tokens of the tests' decoder: utterances last.
SAMPLING = SamplingConfig(temperature=1.0, top_k=5)


@pytest.fixture(scope="session")
def export() -> SpeakingExport:
    return SpeakingExport(talkative_decoder(), noise_codec(), VOCABULARY, context=256)


@pytest.fixture(scope="session")
def config() -> ServeConfig:
    limits = Limits(rows=2, waiting=2, max_seconds=20.0, max_prompt_seconds=1.0, max_upload_mib=0.0625)
    return ServeConfig("export", "127.0.0.1", 0, "cpu", 1.0, limits, SAMPLING)


@pytest.fixture(scope="session")
def server_with(export: SpeakingExport, config: ServeConfig) -> Callable[..., SpeechServer]:
    """A server of the tests' export, with other limits."""

    def make(sampling: SamplingConfig = SAMPLING, **limits: float) -> SpeechServer:
        changed = replace(config, sampling=sampling, limits=replace(config.limits, **limits))
        return SpeechServer(export, changed)

    return make


@pytest.fixture(scope="session")
def client(server_with: Callable[..., SpeechServer]) -> Iterator[TestClient]:
    """Asks a server within this process."""
    with TestClient(server_with().application(), base_url="http://127.0.0.1") as client:
        yield client
