"""Archives that patterns name, or that lie in folders."""

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

from pipeline.audio.corpora.configuration import ListedConfig
from pipeline.audio.corpora.corpus import ListedCorpus
from pipeline.audio.corpora.listing import Located, common_folder, files_of, located


@dataclass(frozen=True)
class ListedArchives(ListedCorpus):
    """A corpus whose sound lies in archives, which are not unpacked.

    Attributes:
        config: names the archives, or what lists them.
        pattern: of the files that a folder is searched for.
    """

    config: ListedConfig
    pattern: ClassVar[str]

    @cached_property
    def _located(self) -> list[Located]:
        return located(self.config, lambda patterns: files_of(patterns, self.pattern))

    @cached_property
    def _home(self) -> str:
        """Where names start."""
        return common_folder([place.location for place in self._located])
