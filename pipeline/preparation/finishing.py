"""From whole shards to prepared data: the indices, the tables, the examples, the data card."""

import shutil
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from pipeline.audio.reading import write_wav
from pipeline.plumbing.files import sweep_of_all_machines, write_json
from pipeline.preparation.data_card import describe, write_card, write_manifest
from pipeline.preparation.encoding import LONG, Encoding, Material
from pipeline.preparation.origins import write_origins
from pipeline.preparation.plan import Plan
from pipeline.preparation.reference import BODIES, FOLDER, load_reference
from pipeline.preparation.utterance_reader import UtteranceReader, by_recording
from pipeline.provenance.prepared_data import write_prepared_identity
from pipeline.tokens.audio_hashes import write_audio_hashes
from pipeline.tokens.shards import document_lengths, finish_split

N_EXAMPLES = 8


def finish_prepared(
    material: Material, encoding: Encoding, corpus: str, codec: Mapping[str, Any], remarks: Sequence[str]
) -> dict[str, Any]:
    """Complete a folder whose shards and references are there; returns the data card.

    Args:
        material: what it was made from, and the folder.
        encoding: what was encoded.
        corpus: the kind of corpus.
        codec: the codec's settings.
        remarks: what the corpus says of itself.
    """
    folder = material.folder
    with material.open() as (plan, read):
        indices = {}
        for split in encoding.counts:
            indices[split] = finish_split(folder / split, encoding.shards_of(split))
            write_origins(plan, split, folder / split)
            write_audio_hashes(folder / split, plan.count_pieces(split), plan.pieces_by_audio(split))
        save_examples(plan, read, folder)
        write_manifest(plan, folder / "manifest.csv")
        references = {name: load_reference(folder / FOLDER, name) for name in BODIES}
        card = describe(corpus, codec, material.codec.frame_rate, plan, remarks, indices, references)
    write_json(folder / "data_card.json", card)
    write_card(card, folder / "data_card.md")
    return card


def save_examples(plan: Plan, read: UtteranceReader, folder: Path) -> None:
    """Keep a few test utterances as recorded: the longest of the first, to be heard beside generated speech."""
    candidates = list(plan.utterances("test", 0, 4 * N_EXAMPLES))
    lengths = list(islice(document_lengths(folder / "test"), len(candidates)))
    longest = sorted(range(len(candidates)), key=lambda document: -lengths[document])[:N_EXAMPLES]
    chosen = by_recording([candidates[document] for document in longest])
    audio = dict(zip((utterance.id for utterance in chosen), read.many(chosen), strict=True))
    rows = []
    for document in sorted(longest):
        name, utterance = f"test_{document:05d}.wav", candidates[document].id
        write_wav(folder / "examples" / name, audio[utterance], read.sample_rate)
        rows.append({"file": name, "document": document, "utterance": utterance})
    write_json(folder / "examples" / "examples.json", rows)


def put_in_place(material: Material, settings: Mapping[str, Any], prepared: Path) -> None:
    """Let finished data take the place of the folder `prepared`, without what only their making needed.

    Args:
        material: of which they were made.
        settings: that decided on their bytes.
        prepared: a link stays, and what it leads to is replaced.
    """
    shutil.rmtree(material.folder / LONG, ignore_errors=True)
    material.plan.unlink()
    sweep_of_all_machines(material.folder)
    write_prepared_identity(material.folder, settings)
    prepared = prepared.resolve()
    if prepared.exists():
        shutil.rmtree(prepared)
    prepared.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(material.folder, prepared)
