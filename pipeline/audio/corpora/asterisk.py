"""Asterisk's prompts as Debian packages them: `en_US_f_Allison/digits/7.wav`, 8 kHz, one speaker a language.

Transcripts come with the packages beside, without `-wav`: `doc/asterisk-core-sounds-en/core-sounds-en.txt.gz`.
"""

import gzip
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

from pipeline.audio.corpora.configuration import AsteriskConfig
from pipeline.audio.corpora.corpus import Recording
from pipeline.audio.corpora.published import PublishedDataset
from pipeline.audio.corpora.tables import counted

# Tones, a joke, and silence of so many seconds: the same names in every language.
NO_SPEECH = ("ascending-2tone", "beep", "beeperr", "confbridge-join", "confbridge-leave", "descending-2tone",
             "tt-monkeys")  # fmt: skip
SILENCE = "silence"


@dataclass(frozen=True)
class Asterisk(PublishedDataset):
    """The prompts of one or more languages."""

    config: AsteriskConfig
    name = "asterisk"
    prefixes = ("", "usr/share/asterisk/sounds")
    landmark = "[a-z][a-z]_[A-Z][A-Z]_*"

    @cached_property
    def folder(self) -> Path:
        """The folder of the languages' folders.

        Raises:
            ValueError: nothing is installed there.
        """
        folder = self._obtain()
        if folder is None:
            raise ValueError(f"data.root={self.config.root} holds no prompts of Asterisk; {self.config.remedy}.")
        return folder

    def recordings(self) -> list[Recording]:
        """The prompts of all languages that are asked for, without those that are no speech.

        Raises:
            ValueError: a language is not installed.
        """
        return list(self._spoken())

    def remarks(self) -> list[str]:
        """What is left out, and where transcripts are missing."""
        left_out = [
            file for language in self.config.languages for file in self._files(language) if not _is_speech(file)
        ]
        remarks = [counted(f"data.root={self.config.root}", "files are no speech and left out", left_out)]
        for language in self.config.languages:
            if not self._transcripts(language):
                remarks.append(
                    f"No transcripts of `{language}`: install asterisk-core-sounds-{language} beside its -wav."
                )
        return remarks

    def _spoken(self) -> Iterator[Recording]:
        for language in self.config.languages:
            transcripts = self._transcripts(language)
            for file in filter(_is_speech, self._files(language)):
                speaker, _, prompt = file.partition("/")
                yield Recording(file, speaker, transcripts.get(prompt.removesuffix(".wav").lower()))

    def _files(self, language: str) -> list[str]:
        if not any(self.folder.glob(f"{language}_*/**/*.wav")):
            raise ValueError(
                f"data.languages: {self.folder} holds no prompts in `{language}`; {self.config.remedy}, or take it out."
            )
        return self.files(f"{language}_*/**/*.wav")

    def _transcripts(self, language: str) -> Mapping[str, str]:
        """What is said, by the prompt's name in lower case, which files and transcripts do not agree on."""
        path = self.folder.parents[1] / f"doc/asterisk-core-sounds-{language}/core-sounds-{language}.txt.gz"
        try:
            lines = gzip.decompress(path.read_bytes()).decode("utf-8-sig").splitlines()
        except (OSError, EOFError, UnicodeDecodeError):
            return {}
        pairs = (line.partition(":") for line in lines if ":" in line and not line.startswith(";"))
        return {name.strip().lower(): text.strip() for name, _, text in pairs if text.strip()}


def _is_speech(file: str) -> bool:
    path = PurePosixPath(file)
    return path.stem not in NO_SPEECH and path.parent.name != SILENCE
