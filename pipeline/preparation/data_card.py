"""What went into the prepared data: a manifest for machines, a card for people."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.audio.measures.summary import ReferenceStatistics
from pipeline.audio.splitting import SPLITS
from pipeline.audio.utterances import Utterance
from pipeline.plumbing.files import atomic_write, write_csv
from pipeline.preparation.inspection import Inspection
from pipeline.tokens.shards import TokenDataset

MANIFEST_COLUMNS = ("file", "speaker", "seconds", "split", "sha256", "status", "reason", "note", "transcript")


def write_manifest(inspections: Sequence[Inspection], splits: Mapping[str, str], path: Path) -> None:
    """One row a recording of the corpus, the rejected ones with their reason."""
    write_csv(
        path,
        (
            {
                "file": i.recording.id,
                "speaker": i.recording.speaker,
                "seconds": f"{i.seconds:.3f}",
                "split": splits.get(i.recording.id, ""),
                "sha256": i.sha256,
                "status": "rejected" if i.reason else "used",
                "reason": i.reason,
                "note": i.note,
                "transcript": i.recording.transcript or "",
            }
            for i in inspections
        ),
        columns=MANIFEST_COLUMNS,
    )


def describe(
    corpus: str,
    codec: Mapping[str, Any],
    frame_rate: float,
    inspections: Sequence[Inspection],
    remarks: Sequence[str],
    utterances: Sequence[Utterance],
    tokens: Mapping[str, TokenDataset],
    references: Mapping[str, ReferenceStatistics],
) -> dict[str, Any]:
    """The data card's facts.

    Args:
        corpus: the kind of corpus.
        codec: the codec's settings.
        frame_rate: frames a second.
        inspections: every recording.
        remarks: what the corpus says of itself.
        utterances: every utterance.
        tokens: the finished splits.
        references: measures of real speech.
    """
    rejected = [{"file": i.recording.id, "reason": i.reason} for i in inspections if i.reason]
    noted = [{"file": i.recording.id, "note": i.note} for i in inspections if i.note and not i.reason]
    return {
        "corpus": corpus,
        "codec": dict(codec),
        "frame_rate": frame_rate,
        "recordings": len(inspections),
        "rejected_count": len(rejected),
        "rejected": rejected[:100],
        "noted_count": len(noted),
        "noted": noted[:100],
        "remarks": list(remarks),
        "splits": {
            split: {
                "utterances": len(tokens[split]),
                "seconds": round(_frames(tokens[split]) / frame_rate, 3),
                "speakers": len({u.speaker for u in utterances if u.split == split}),
                "tokens": tokens[split].n_tokens,
            }
            for split in SPLITS
        },
        "reference": {name: reference.measures.numbers() for name, reference in references.items()},
    }


def _frames(dataset: TokenDataset) -> int:
    """Frames of all documents, each of which has two tokens besides: its beginning and its end."""
    return int((dataset.lengths - 2).sum()) // dataset.vocabulary.n_codebooks


def write_card(card: Mapping[str, Any], path: Path) -> None:
    """Write the data card as Markdown."""
    rows = [
        f"| {split} | {row['utterances']} | {row['seconds'] / 60:.1f} | {row['speakers']} | {row['tokens']} |"
        for split, row in card["splits"].items()
    ]
    lines = [
        f"# Data card: {card['corpus']}",
        "",
        f"{card['recordings']} recordings, {card['rejected_count']} of them not used, {card['noted_count']} used with "
        "a note (see manifest.csv).",
        *card["remarks"],
        f"Codec: {card['codec']['kind']}, {card['frame_rate']:g} frames a second.",
        "",
        "| split | utterances | minutes | speakers | tokens |",
        "|---|---|---|---|---|",
        *rows,
        "",
        "| real speech | utterances | spectral flatness | mel flux, dB | modulation depth |",
        "|---|---|---|---|---|",
        *(
            f"| {name} | {r['n_utterances']} | {r['flatness']:.3f} | {r['mel_flux_db']:.2f} "
            f"| {r['modulation_depth']:.2f} |"
            for name, r in card["reference"].items()
        ),
    ]
    with atomic_write(path) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
