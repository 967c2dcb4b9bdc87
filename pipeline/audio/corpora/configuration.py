"""The corpora's own options in the `data` group of the configuration: one dataclass a kind. Light: needs no torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from pipeline.audio.corpora.options import (
    require_boolean,
    require_choice,
    require_locations,
    require_positive,
    require_range,
    require_root,
)
from pipeline.configuration.settings import read_settings

SPEAKER_FROM = ("folder", "file", "none")
# The subsets of LibriSpeech, and of LibriTTS.
SUBSETS = (
    "dev-clean", "dev-other", "test-clean", "test-other", "train-clean-100", "train-clean-360", "train-other-500"
)  # fmt: skip
ASTERISK_LANGUAGES = ("en", "es", "fr", "it", "ru")


@dataclass(frozen=True)
class EspeakConfig:
    """What is spoken, and how.

    Attributes:
        minutes: how much speech; the last recording may exceed it.
        voices: espeak-ng languages, each with a variant if wanted, as `en-us+f3`; each is one speaker.
        words_per_minute: the lowest and the highest rate of speech, drawn uniformly for each sentence.
        pitch: the lowest and the highest pitch, from 0 to 99, drawn uniformly for each sentence.
    """

    LARGEST: ClassVar[Mapping[str, float]] = {"minutes": 60_000}

    minutes: float
    voices: tuple[str, ...]
    words_per_minute: tuple[int, int]
    pitch: tuple[int, int]

    def __post_init__(self) -> None:
        require_positive("minutes", self.minutes)
        voices = self.voices
        if not isinstance(voices, list | tuple) or not voices or not all(isinstance(voice, str) for voice in voices):
            raise ValueError(f"data.voices must be a list of voices such as `en-us`, not {voices!r}.")
        if len(set(voices)) < len(voices):
            raise ValueError("data.voices names a voice twice; name each once.")
        object.__setattr__(self, "voices", tuple(voices))
        object.__setattr__(self, "words_per_minute", require_range("words_per_minute", self.words_per_minute, 80, 450))
        object.__setattr__(self, "pitch", require_range("pitch", self.pitch, 0, 99))


@dataclass(frozen=True)
class FolderConfig:
    """Where the audio lies, and what its names tell.

    Attributes:
        root: the top of the tree.
        speaker_from: `folder`: the file's parent folder; `file`: every file its own speaker; `none`: one speaker.
        transcripts: a CSV or TSV file with the columns `file` (relative to root), `text` and optionally `speaker`,
            itself named relative to root; or None.
    """

    root: str | Path
    speaker_from: str
    transcripts: str | None

    def __post_init__(self) -> None:
        require_root(self.root)
        require_choice("speaker_from", self.speaker_from, SPEAKER_FROM)
        if self.transcripts is not None and not isinstance(self.transcripts, str):
            raise ValueError(
                f"data.transcripts must be the path of a CSV or TSV file, or null, not {self.transcripts!r}."
            )


@dataclass(frozen=True)
class ListedConfig:
    """Where recordings are listed, the held-out ones apart if need be; each a path, a pattern, a URL, or some of them.

    Attributes:
        path: of the lists.
        validation_path: of those with the validation split; None: it is drawn.
        test_path: of those with the test split; None: it is drawn.
    """

    path: str | tuple[str, ...]
    validation_path: str | tuple[str, ...] | None
    test_path: str | tuple[str, ...] | None

    def __post_init__(self) -> None:
        require_locations("path", self.path)
        for name in ("validation_path", "test_path"):
            if getattr(self, name) is not None:
                require_locations(name, getattr(self, name))


@dataclass(frozen=True)
class ManifestConfig(ListedConfig):
    """Which manifests there are, and what they leave open.

    Attributes:
        supervisions: of lhotse, whose recordings `path` names then; None: there are none.
        audio_root: where relative paths of audio start; None: the folder of the manifest that has them.
        speaker_from: who speaks where a line does not tell, as of a folder.
    """

    supervisions: str | tuple[str, ...] | None
    audio_root: str | None
    speaker_from: str

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("supervisions", "audio_root"):
            if getattr(self, name) is not None:
                require_locations(name, getattr(self, name))
        require_choice("speaker_from", self.speaker_from, SPEAKER_FROM)


@dataclass(frozen=True)
class WebDatasetConfig(ListedConfig):
    """Which archives there are, and what they leave open.

    Attributes:
        manifest: of what the archives hold, by the names of members, as NeMo writes one; None: archives tell it.
        speaker_from: who speaks where nothing tells, as of a folder.
    """

    manifest: str | tuple[str, ...] | None
    speaker_from: str

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.manifest is not None:
            require_locations("manifest", self.manifest)
        require_choice("speaker_from", self.speaker_from, SPEAKER_FROM)


@dataclass(frozen=True)
class RootConfig:
    """A dataset that is there already, in or under `root`."""

    root: str | Path

    def __post_init__(self) -> None:
        require_root(self.root)


@dataclass(frozen=True)
class AsteriskConfig(RootConfig):
    """Which of the languages that Debian packages are heard."""

    languages: tuple[str, ...]

    def __post_init__(self) -> None:
        super().__post_init__()
        languages = self.languages
        if not languages or len(set(languages)) < len(languages):
            raise ValueError(f"data.languages must name one or more languages, each once, not {list(languages)}.")
        for language in languages:
            require_choice("languages", language, ASTERISK_LANGUAGES)

    @property
    def remedy(self) -> str:
        """How to get what is not there."""
        names = [f"asterisk-core-sounds-{language}" for language in self.languages]
        packages = " ".join(f"{name}-wav {name}" for name in names)
        return f"install them with `sudo apt-get install {packages}`, or unpack these packages and correct data.root"


@dataclass(frozen=True)
class DownloadConfig(RootConfig):
    """A dataset that is fetched into `root` when it is not there and `download` is set."""

    download: bool

    def __post_init__(self) -> None:
        super().__post_init__()
        require_boolean("download", self.download)


@dataclass(frozen=True)
class SubsetConfig(DownloadConfig):
    """One of the subsets in which a large dataset comes."""

    subset: str

    def __post_init__(self) -> None:
        super().__post_init__()
        require_choice("subset", self.subset, SUBSETS)


@dataclass(frozen=True)
class VctkConfig(DownloadConfig):
    """Which of the two microphones is heard; some speakers have no second one."""

    microphone: str

    def __post_init__(self) -> None:
        super().__post_init__()
        require_choice("microphone", self.microphone, ("mic1", "mic2"))


CONFIGS: dict[str, Any] = {
    "espeak": EspeakConfig,
    "folder": FolderConfig,
    "manifest": ManifestConfig,
    "webdataset": WebDatasetConfig,
    "lhotse_shar": ListedConfig,
    "fsdd": RootConfig,
    "asterisk": AsteriskConfig,
    "ljspeech": DownloadConfig,
    "librispeech": SubsetConfig,
    "libritts": SubsetConfig,
    "vctk": VctkConfig,
    "yesno": DownloadConfig,
    "speechcommands": DownloadConfig,
}
KINDS = tuple(CONFIGS)


def corpus_settings(kind: str, options: Mapping[str, Any]) -> Any:
    """The options of a corpus of this kind, validated.

    Raises:
        ValueError: the kind or an option is unknown, missing or invalid; the message names `data.<option>`.
    """
    require_choice("kind", kind, KINDS)
    return read_settings(CONFIGS[kind], options, "data")
