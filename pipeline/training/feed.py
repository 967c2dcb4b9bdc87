"""What a training reads: the tokens of one folder of prepared data, or of several in their shares."""

import logging
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lightning_modules.documents import CappedDocuments, ChosenDocuments, Documents
from lightning_modules.mixture import Mixture
from pipeline.audio.codecs.configuration import USE, codec_differences
from pipeline.plumbing.fingerprint import fingerprint
from pipeline.provenance.prepared_data import PreparedIdentity, read_prepared_identity
from pipeline.provenance.remote_data import LocalCopy, local_copy
from pipeline.tokens.dataset import TokenDataset
from pipeline.tokens.vocabulary import Vocabulary
from pipeline.training.configuration import DROP, FeedConfig
from pipeline.training.duplicates import Duplicates, UntoldAudioError, find_duplicates

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Corpus:
    """One folder of prepared data.

    Attributes:
        name: in metrics.
        location: where it lies, a folder or a URL.
        copy: it, on this machine.
        identity: what it is.
        train: its tokens.
        validation: its held-out tokens.
    """

    name: str
    location: str
    copy: LocalCopy
    identity: PreparedIdentity
    train: TokenDataset
    validation: TokenDataset


@dataclass(frozen=True)
class Feed:
    """What a training reads.

    Attributes:
        usual: the identity of the data whose codec and test split later stages take.
        corpora: one, or several in the order of the mixture.
        weights: of each, up to a common factor; empty where `paths.prepared` is read alone.
        max_document_tokens: of longer training documents only the beginning is read; None: all.
        duplicates: what corpora have in common; None where there is one.
        drops: whether that is left out.
    """

    usual: PreparedIdentity
    corpora: Sequence[Corpus]
    weights: Sequence[float]
    max_document_tokens: int | None
    duplicates: Duplicates | None = None
    drops: bool = False

    @property
    def vocabulary(self) -> Vocabulary:
        """What the tokens of all corpora mean."""
        return self.corpora[0].train.vocabulary

    @property
    def names(self) -> tuple[str, ...]:
        """What the corpora are called whose validation is told apart; none where there is one."""
        return tuple(corpus.name for corpus in self.corpora) if len(self.corpora) > 1 else ()

    @property
    def train(self) -> Documents | Mixture:
        """What is trained on."""
        documents = {corpus.name: self._documents(corpus) for corpus in self.corpora}
        if not self.weights:
            return documents[self.corpora[0].name]
        return Mixture(documents, dict(zip(documents, self.weights, strict=True)))

    @property
    def validation(self) -> dict[str, Documents]:
        """What is validated on, whole documents throughout."""
        return {corpus.name: corpus.validation for corpus in self.corpora}

    @property
    def content(self) -> Any:
        """What tells the tokens that are read from others, wherever their folders lie."""
        digests = [corpus.identity.digest for corpus in self.corpora]
        if not self.weights and self.max_document_tokens is None:
            return digests[0]
        shares = [weight / sum(self.weights) for weight in self.weights]
        content = {"corpora": digests, "shares": shares, "max_document_tokens": self.max_document_tokens}
        if not self._left_out:
            return content
        left_out = [np.flatnonzero(self._left_out.get(corpus.name, ())).tolist() for corpus in self.corpora]
        return {**content, "left_out": fingerprint(left_out)}

    def describe_capped(self) -> str | None:
        """How many documents are read in part, in a sentence; None: none."""
        if self.max_document_tokens is None:
            return None
        capped = [self._documents(corpus) for corpus in self.corpora]
        n_capped = sum(documents.n_capped for documents in capped if isinstance(documents, CappedDocuments))
        n_documents = sum(len(documents) for documents in capped)
        return (
            f"Of {n_capped:,} of {n_documents:,} documents only the first {self.max_document_tokens:,} tokens are "
            "trained on (feed.max_document_tokens)."
        )

    def describe_duplicates(self) -> list[str]:
        """What corpora have in common, a sentence for each pair."""
        consequence = "they are left out" if self.drops else "they are trained on all the same (feed.duplicates=keep)"
        return [
            f"Of {one.n_of:,} training documents of {one.corpus}, {one.clause}; {consequence}."
            for one in (self.duplicates.overlaps if self.duplicates else ())
        ]

    def verify(self) -> None:
        """Wait until everything has been compared with its checksums, as `TokenDataset.verify`."""
        for corpus in self.corpora:
            corpus.train.verify()
            corpus.validation.verify()

    @property
    def _left_out(self) -> dict[str, np.ndarray]:
        """Which documents of a corpus are not trained on, bool [documents], of corpora that have some."""
        if self.duplicates is None or not self.drops:
            return {}
        return {name: repeated for name, repeated in self.duplicates.repeated.items() if repeated.any()}

    def _documents(self, corpus: Corpus) -> Documents:
        """Those of a corpus that are trained on, and as much of them as is."""
        left_out = self._left_out.get(corpus.name)
        documents = corpus.train if left_out is None else ChosenDocuments(corpus.train, ~left_out)
        return documents if self.max_document_tokens is None else CappedDocuments(documents, self.max_document_tokens)


def open_feed(usual: Path, config: FeedConfig, cache: Path, cache_gb: float) -> Feed:
    """Open what is configured.

    Args:
        usual: the folder of prepared data whose codec and test split later stages take.
        config: the mixture, if there is one.
        cache: where data are copied to that lie behind a URL.
        cache_gb: what all such copies may take.

    Raises:
        OSError, ValueError: data are missing, damaged or out of reach, or speak through another codec than the usual
            ones; the message names the folders.
    """
    usual_identity = read_prepared_identity(usual)
    if config.mixture is None:
        corpus = _open(usual.name, str(usual), LocalCopy(usual), usual_identity)
        return Feed(usual_identity, [corpus], [], config.max_document_tokens)
    corpora = []
    for location, name in zip(config.mixture, corpus_names(list(config.mixture)), strict=True):
        copy = local_copy(location, cache, cache_gb)
        remedy = f"python -m pipeline.prepare_data data=… paths.prepared={location} codec.taken_from={usual}"
        identity = read_prepared_identity(copy.folder, remedy)
        require_codec(location, identity, usual, usual_identity)
        corpora.append(_open(name, location, copy, identity))
    drops = config.duplicates == DROP
    duplicates = _duplicates(corpora, usual, usual_identity, drops)
    weights = list(config.mixture.values())
    return Feed(usual_identity, corpora, weights, config.max_document_tokens, duplicates, drops)


def _duplicates(
    corpora: Sequence[Corpus], usual: Path, usual_identity: PreparedIdentity, drops: bool
) -> Duplicates | None:
    """What corpora have in common with one another, and with what the usual data hold out; None where nobody can tell.

    Raises:
        ValueError: what they have in common is left out, and nobody can tell, or nothing is left of one.
    """
    folders = {corpus.name: corpus.copy.folder for corpus in corpora}
    is_mixed = any(corpus.identity.digest == usual_identity.digest for corpus in corpora)
    held_out = folders if is_mixed else {**folders, str(usual): usual}
    try:
        duplicates = find_duplicates(folders, {corpus.name: len(corpus.train) for corpus in corpora}, held_out)
    except UntoldAudioError as error:
        if drops:
            raise
        log.warning("%s", error)
        return None
    if drops:
        require_rest(duplicates)
    return duplicates


def require_rest(duplicates: Duplicates) -> None:
    """Refuse a corpus of which nothing would be left.

    Raises:
        ValueError: naming it, and why.
    """
    for name, repeated in duplicates.repeated.items():
        if repeated.all():
            found = ", ".join(one.clause for one in duplicates.overlaps if one.corpus == name)
            raise ValueError(
                f"feed.mixture: nothing of {name} is left to train on: of its {len(repeated):,} training documents "
                f"{found}. Leave it out, or set feed.duplicates=keep."
            )


def require_codec(folder: str, identity: PreparedIdentity, usual: Path, usual_identity: PreparedIdentity) -> None:
    """Refuse tokens that mean other sounds than those they are mixed with.

    Raises:
        ValueError: naming both folders, and what differs.
    """
    if identity.codec == usual_identity.codec:
        return
    ours, theirs = (_settings_of_codec(one) for one in (usual_identity, identity))
    if clauses := codec_differences(theirs, ours):
        raise ValueError(
            f"feed.mixture: {folder} speaks through another codec than {usual}: {'; '.join(clauses)}. Prepare it "
            f"again with the other's settings and codec.taken_from={usual}."
        )
    raise ValueError(
        f"feed.mixture: the codecs of {folder} and {usual} have the same settings, but each was fitted on its own "
        f"corpus, so that their tokens mean other sounds. Prepare {folder} again with codec.taken_from={usual}."
    )


def _settings_of_codec(identity: PreparedIdentity) -> dict[str, Any]:
    """Of the codec itself, not of how it was used."""
    groups = ((name.partition("."), value) for name, value in identity.settings.items())
    return {name: value for (group, _, name), value in groups if group == "codec" and name not in USE}


def corpus_names(folders: Sequence[str]) -> list[str]:
    """What folders are called in metrics: the shortest ends of their paths that tell them apart.

    Raises:
        ValueError: two are the same.
    """
    paths = [re.split(r"[/\\]+", os.path.normpath(folder).strip("/\\")) for folder in folders]
    for length in range(1, max(map(len, paths)) + 1):
        # What a tracking store takes as a metric's name.
        names = [re.sub(r"[^\w. -]", "_", "-".join(path[-length:])) for path in paths]
        if len(set(names)) == len(names):
            return names
    raise ValueError(f"feed.mixture names a folder twice: {', '.join(folders)}; give each one share.")


def _open(name: str, location: str, copy: LocalCopy, identity: PreparedIdentity) -> Corpus:
    train, validation = (TokenDataset.open(copy.folder / split) for split in ("train", "validation"))
    return Corpus(name, location, copy, identity, train, validation)


def feed_recipe(values: Mapping[str, Any]) -> str:
    """What a training's name says of its data: the corpus, and how many more are mixed with it."""
    mixture = values["feed"]["mixture"]
    return f"mixture of {len(mixture)}" if mixture else str(values["data"]["kind"])
