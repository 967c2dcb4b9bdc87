"""The kinds of corpus: from the `data` configuration group to a corpus."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.audio.corpora.asterisk import Asterisk
from pipeline.audio.corpora.configuration import EspeakConfig, corpus_settings
from pipeline.audio.corpora.corpus import Corpus
from pipeline.audio.corpora.espeak import EspeakCorpus
from pipeline.audio.corpora.folder import FolderCorpus
from pipeline.audio.corpora.fsdd import Fsdd
from pipeline.audio.corpora.lhotse_shar import SharCorpus
from pipeline.audio.corpora.librispeech import LibriSpeech
from pipeline.audio.corpora.libritts import LibriTts
from pipeline.audio.corpora.ljspeech import LjSpeech
from pipeline.audio.corpora.manifest import ManifestCorpus
from pipeline.audio.corpora.speechcommands import SpeechCommands
from pipeline.audio.corpora.vctk import Vctk
from pipeline.audio.corpora.webdataset import WebDatasetCorpus
from pipeline.audio.corpora.yesno import YesNo

# Corpora that somebody recorded.
RECORDED: dict[str, Any] = {
    "folder": FolderCorpus,
    "manifest": ManifestCorpus,
    "webdataset": WebDatasetCorpus,
    "lhotse_shar": SharCorpus,
    "fsdd": Fsdd,
    "asterisk": Asterisk,
    "ljspeech": LjSpeech,
    "librispeech": LibriSpeech,
    "libritts": LibriTts,
    "vctk": Vctk,
    "yesno": YesNo,
    "speechcommands": SpeechCommands,
}


def build_corpus(kind: str, options: Mapping[str, Any], cache: Path, seed: int) -> Corpus:
    """The corpus of a kind.

    Args:
        kind: one of KINDS.
        options: the kind's own options, as the files under conf/data show them.
        cache: where a corpus that is made here keeps its recordings.
        seed: what a corpus that is made here is drawn from.

    Raises:
        ValueError: the kind or an option is unknown, missing or invalid; the message names `data.<option>`.
    """
    config = corpus_settings(kind, options)
    if isinstance(config, EspeakConfig):
        return EspeakCorpus(config, cache, seed)
    corpus: Corpus = RECORDED[kind](config)
    return corpus
