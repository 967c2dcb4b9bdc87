from pathlib import Path

import pytest

from pipeline.audio.codecs.mel_rvq import MelRvqCodec
from pipeline.streaming.export import SpeakingExport, load_export
from tests.speaking_export import noise_codec, talkative_decoder, write_speaking_export


@pytest.fixture(scope="session")
def codec() -> MelRvqCodec:
    return noise_codec()


@pytest.fixture(scope="session")
def export_folder(codec: MelRvqCodec, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_speaking_export(tmp_path_factory.mktemp("speaking") / "export", talkative_decoder(), codec)


@pytest.fixture(scope="session")
def export(export_folder: Path) -> SpeakingExport:
    return load_export(export_folder, "cpu")
