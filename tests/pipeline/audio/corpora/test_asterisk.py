import gzip
from pathlib import Path

import numpy as np
import pytest
import soundfile

from pipeline.audio.corpora.corpus import Recording
from pipeline.audio.corpora.registry import build_corpus

FILES = ("en_US_f_Allison/digits/7", "en_US_f_Allison/activated", "en_US_f_Allison/beep", "en_US_f_Allison/silence/1",
         "es_MX_f_Allison/digits/1F")  # fmt: skip


def asterisk(root: Path, *languages: str):
    return build_corpus("asterisk", {"root": str(root), "languages": list(languages)}, root / "cache", 0)


@pytest.fixture
def unpacked(tmp_path: Path) -> Path:
    """What `dpkg -x` leaves of two languages, of which one has no transcripts."""
    for name in FILES:
        path = tmp_path / "usr/share/asterisk/sounds" / f"{name}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, np.zeros(800), 8000)
    document = tmp_path / "usr/share/doc/asterisk-core-sounds-en/core-sounds-en.txt.gz"
    document.parent.mkdir(parents=True)
    text = "\ufeff; Core Asterisk Sounds\n\nactivated: Activated.\nDigits/7: seven: 7\nbeep: [a beep]\n"
    document.write_bytes(gzip.compress(text.encode()))
    return tmp_path


@pytest.mark.parametrize("below", ["", "usr/share/asterisk/sounds"])
def test_speech_is_listed_with_speakers_and_transcripts(unpacked, below):
    corpus = asterisk(unpacked / below, "en", "es")
    assert corpus.recordings() == [
        Recording("en_US_f_Allison/activated.wav", "en_US_f_Allison", "Activated."),
        Recording("en_US_f_Allison/digits/7.wav", "en_US_f_Allison", "seven: 7"),
        Recording("es_MX_f_Allison/digits/1F.wav", "es_MX_f_Allison"),
    ]
    assert Path(corpus.source(corpus.recordings()[1]).path).is_file()
    left_out, missing = corpus.remarks()
    assert "2 files are no speech and left out (en_US_f_Allison/beep.wav; en_US_f_Allison/silence/1.wav)" in left_out
    assert missing == "No transcripts of `es`: install asterisk-core-sounds-es beside its -wav."


@pytest.mark.parametrize(
    ("languages", "packages"),
    [
        (["fr", "en"], "asterisk-core-sounds-fr-wav asterisk-core-sounds-fr asterisk-core-sounds-en-wav"),
        (["it"], "asterisk-core-sounds-it-wav asterisk-core-sounds-it"),
    ],
)
def test_what_is_not_installed_comes_with_the_command(unpacked, languages, packages):
    for root in (unpacked, unpacked / "elsewhere"):
        with pytest.raises(ValueError, match=f"data\\..*install them with `sudo apt-get install {packages}"):
            asterisk(root, *languages).recordings()


@pytest.mark.parametrize("languages", [[], ["en", "en"], ["de"]])
def test_languages_that_cannot_be(unpacked, languages):
    with pytest.raises(ValueError, match="data.languages"):
        asterisk(unpacked, *languages)
