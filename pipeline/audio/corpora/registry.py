"""The kinds of corpus: from the `data` configuration group to a corpus."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.audio.corpora.corpus import Corpus
from pipeline.audio.corpora.espeak import EspeakConfig, EspeakCorpus
from pipeline.audio.corpora.folder import FolderConfig, FolderCorpus
from pipeline.audio.corpora.fsdd import Fsdd
from pipeline.audio.corpora.librispeech import LibriSpeech
from pipeline.audio.corpora.libritts import LibriTts
from pipeline.audio.corpora.ljspeech import LjSpeech
from pipeline.audio.corpora.options import require_choice
from pipeline.audio.corpora.published import DownloadConfig, RootConfig, SubsetConfig
from pipeline.audio.corpora.speechcommands import SpeechCommands
from pipeline.audio.corpora.vctk import Vctk, VctkConfig
from pipeline.audio.corpora.yesno import YesNo
from pipeline.configuration.settings import read_settings

# Kind: the dataclass of its options, and the corpus made of them.
RECORDED: dict[str, tuple[Any, Any]] = {
    "folder": (FolderConfig, FolderCorpus),
    "fsdd": (RootConfig, Fsdd),
    "ljspeech": (DownloadConfig, LjSpeech),
    "librispeech": (SubsetConfig, LibriSpeech),
    "libritts": (SubsetConfig, LibriTts),
    "vctk": (VctkConfig, Vctk),
    "yesno": (DownloadConfig, YesNo),
    "speechcommands": (DownloadConfig, SpeechCommands),
}
KINDS = ("espeak", *RECORDED)


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
    require_choice("kind", kind, KINDS)
    if kind == "espeak":
        return EspeakCorpus(read_settings(EspeakConfig, options, "data"), cache, seed)
    config_class, corpus_class = RECORDED[kind]
    corpus: Corpus = corpus_class(read_settings(config_class, options, "data"))
    return corpus
