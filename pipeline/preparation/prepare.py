"""The stage as a library: from the `data` and `codec` groups to finished data in a folder."""

import logging
import math
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from torch import Tensor

from pipeline.audio.codecs.codec import Codec
from pipeline.audio.codecs.configuration import codec_settings
from pipeline.audio.codecs.registry import codec_class
from pipeline.audio.codecs.storage import load_codec, save_codec
from pipeline.audio.corpora.corpus import Corpus
from pipeline.audio.corpora.registry import build_corpus
from pipeline.audio.reading import write_wav
from pipeline.audio.splitting import SPLITS, assign_splits
from pipeline.audio.utterances import Utterance, plan_utterances
from pipeline.plumbing.files import sweep, write_json
from pipeline.plumbing.fingerprint import fingerprint
from pipeline.preparation.configuration import DataConfig, read_data
from pipeline.preparation.data_card import describe, write_card, write_manifest
from pipeline.preparation.encoding import encode_splits
from pipeline.preparation.inspection import Inspection, inspect_corpus, require_usable
from pipeline.preparation.origins import write_origins
from pipeline.preparation.reference import measure_references, save_references
from pipeline.preparation.refusal import listed_when_refused
from pipeline.preparation.utterance_reader import UtteranceReader, by_recording
from pipeline.preparation.watching import warn_of_unwatched
from pipeline.provenance.exports import CODEC
from pipeline.provenance.prepared_data import (
    combination_folder,
    fits,
    prepared_settings,
    settings_name,
    write_prepared_identity,
)
from pipeline.tokens.shards import TokenDataset, finish_split
from pipeline.tokens.vocabulary import Vocabulary

log = logging.getLogger(__name__)

N_EXAMPLES = 8


def prepare(values: Mapping[str, Any], prepared: Path, cache: Path) -> dict[str, Any]:
    """Write `prepared`, whole or not at all; another process that prepares with the same cache is waited for.

    Args:
        values: the configuration, of which `data` and `codec` count.
        prepared: the folder, which is replaced.
        cache: where an interrupted call leaves what it has done, and the next one finds it.

    Returns:
        The data card.

    Raises:
        ValueError: a setting cannot be, or too much of the corpus cannot be used.
    """
    with _sole_use(cache):
        for folder in (prepared, cache):
            sweep(folder)
        return _prepare(values, prepared, cache)


def prepare_combination(values: Mapping[str, Any], usual: Path, cache: Path) -> Path:
    """Find data as a job of a sweep asks for, or prepare them: each combination of settings once, whoever asks.

    Args:
        values: the configuration, of which `data` and `codec` count.
        usual: a folder that is looked into first.
        cache: where the folders of other combinations lie.

    Returns:
        The folder.

    Raises:
        ValueError: as `prepare` does.
    """
    settings = prepared_settings(values)
    own = combination_folder(cache, settings_name(settings))
    for folder in (usual, own):
        if fits(folder, settings):
            return folder
    with _sole_use(cache):
        # The process that was waited for may have prepared this very combination.
        if not fits(own, settings):
            log.info("Preparing %s for the jobs that share it.", own)
            _prepare(values, own, cache)
    return own


@contextmanager
def _sole_use(cache: Path) -> Iterator[None]:
    """Wait until no other process prepares with this cache: each would use all cores, and write the same files."""
    cache.mkdir(parents=True, exist_ok=True)
    lock = FileLock(cache / "preparing.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        log.info("Another process prepares data in %s; waiting for it.", cache)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _prepare(values: Mapping[str, Any], prepared: Path, cache: Path) -> dict[str, Any]:
    data = read_data(values["data"])
    corpus = build_corpus(data.kind, data.options, cache, data.seed)
    recordings = corpus.recordings()
    for remark in corpus.remarks():
        log.warning(remark)
    warn_of_unwatched(corpus, [recording.id for recording in recordings])
    inspections = inspect_corpus(
        corpus, recordings, data.utterances.min_recording_seconds, data.screening, data.processing.workers
    )
    with listed_when_refused(inspections, prepared):
        require_usable(inspections, data.screening)
        return _write(values, data, corpus, inspections, prepared, cache)


def _write(
    values: Mapping[str, Any],
    data: DataConfig,
    corpus: Corpus,
    inspections: Sequence[Inspection],
    prepared: Path,
    cache: Path,
) -> dict[str, Any]:
    """Make prepared data of a corpus that was inspected."""
    codec_options, processing = values["codec"], data.processing
    sample_rate = codec_class(codec_options["kind"]).sample_rate_of(codec_settings(codec_options))
    usable = [i for i in inspections if not i.reason]
    splits = assign_splits([i.recording for i in usable], data.split, data.seed)
    utterances = plan_utterances(
        {i.recording.id: i.seconds for i in usable},
        {i.recording.id: i.recording.speaker for i in usable},
        splits,
        data.utterances,
        data.seed,
    )
    by_id = {i.recording.id: i for i in inspections}
    read = UtteranceReader(corpus, by_id, sample_rate, data.utterances.gap_seconds)
    # What an interrupted run has encoded is found again by what it was encoded from: names and speakers decide on the
    # split and the order, so a corpus renamed in between is another one.
    settings = prepared_settings(values)
    work = cache / f"prepared-{fingerprint(settings, [asdict(i) for i in inspections])[:16]}"
    codec = fit_or_load(codec_options, read, utterances, work / CODEC, data.seed)
    vocabulary = Vocabulary(codec.n_codebooks, codec.codebook_size)
    encode_splits(utterances, read, codec, vocabulary, work, processing.shard_utterances, processing.workers)
    transcripts = {i.recording.id: i.recording.transcript or "" for i in usable}
    for split in SPLITS:
        own = [utterance for utterance in utterances if utterance.split == split]
        finish_split(work / split, math.ceil(len(own) / processing.shard_utterances))
        write_origins(own, transcripts, work / split)
    tokens = {split: TokenDataset.open(work / split) for split in SPLITS}
    references = measure_references(
        utterances, read, codec, processing.reference_utterances, data.seed, processing.workers
    )
    save_references(references, work / "reference")
    save_examples(utterances, read, tokens["test"], work / "examples")
    write_manifest(inspections, splits, work / "manifest.csv")
    remarks = corpus.remarks()
    card = describe(data.kind, codec_options, codec.frame_rate, inspections, remarks, utterances, tokens, references)
    write_json(work / "data_card.json", card)
    write_card(card, work / "data_card.md")
    write_prepared_identity(work, settings)
    replace_folder(prepared, work)
    return card


def fit_or_load(
    options: Mapping[str, Any], read: UtteranceReader, utterances: Sequence[Utterance], folder: Path, seed: int
) -> Codec:
    """Fit the codec on the train split, unless an interrupted run has already done so."""
    if not (folder / "codec.json").exists():
        train = [u for u in utterances if u.split == "train"]
        fit = codec_class(options["kind"]).fit
        save_codec(fit(codec_settings(options), lambda: waveforms(train, read), seed), folder)
    return load_codec(folder)


def waveforms(utterances: Sequence[Utterance], read: UtteranceReader) -> Iterator[Tensor]:
    """The samples of one utterance after another; each recording is read once."""
    for audio in read.many(by_recording(utterances)):
        yield torch.from_numpy(audio)


def save_examples(utterances: Sequence[Utterance], read: UtteranceReader, test: TokenDataset, folder: Path) -> None:
    """Keep a few test utterances as recorded: the longest of the first, to be heard beside generated speech."""
    candidates = [u for u in utterances if u.split == "test"][: 4 * N_EXAMPLES]
    longest = sorted(range(len(candidates)), key=lambda document: -test.lengths[document])[:N_EXAMPLES]
    chosen = by_recording([candidates[document] for document in longest])
    audio = dict(zip((utterance.id for utterance in chosen), read.many(chosen), strict=True))
    rows = []
    for document in sorted(longest):
        name, utterance = f"test_{document:05d}.wav", candidates[document].id
        write_wav(folder / name, audio[utterance], read.sample_rate)
        rows.append({"file": name, "document": document, "utterance": utterance})
    write_json(folder / "examples.json", rows)


def replace_folder(folder: Path, new: Path) -> None:
    """Put the folder `new` in the place of `folder`; a link stays, and what it leads to is replaced."""
    folder = folder.resolve()
    if folder.exists():
        shutil.rmtree(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(new, folder)
