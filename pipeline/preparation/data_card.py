"""What went into the prepared data: a manifest for machines, a card for people."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.audio.measures.summary import ReferenceStatistics
from pipeline.plumbing.files import atomic_write, write_csv
from pipeline.preparation.plan import Plan
from pipeline.tokens.vocabulary import Vocabulary

MANIFEST_COLUMNS = ("file", "speaker", "seconds", "split", "sha256", "status", "reason", "note", "transcript")
# Recordings that the card names; the manifest has all.
N_NAMED = 100


def write_manifest(plan: Plan, path: Path) -> None:
    """One row a recording of the corpus, the rejected ones with their reason."""
    write_csv(
        path,
        (
            {
                "file": i.recording.id,
                "speaker": i.recording.speaker,
                "seconds": f"{i.seconds:.3f}",
                "split": split,
                "sha256": i.sha256,
                "status": "rejected" if i.reason else "used",
                "reason": i.reason,
                "note": i.note,
                "transcript": i.recording.transcript or "",
            }
            for i, split in plan.recordings()
        ),
        columns=MANIFEST_COLUMNS,
    )


def describe(
    corpus: str,
    codec: Mapping[str, Any],
    frame_rate: float,
    plan: Plan,
    remarks: Sequence[str],
    indices: Mapping[str, Mapping[str, Any]],
    references: Mapping[str, ReferenceStatistics],
) -> dict[str, Any]:
    """The data card's facts.

    Args:
        corpus: the kind of corpus.
        codec: the codec's settings.
        frame_rate: frames a second.
        plan: what was prepared.
        remarks: what the corpus says of itself.
        indices: of the finished splits.
        references: measures of real speech.
    """
    return {
        "corpus": corpus,
        "codec": dict(codec),
        "frame_rate": frame_rate,
        "recordings": plan.count_recordings(),
        "rejected_count": plan.count_rejected(),
        "rejected": [{"file": i.recording.id, "reason": i.reason} for i in plan.rejected(N_NAMED)],
        "noted_count": plan.count_noted(),
        "noted": [{"file": i.recording.id, "note": i.note} for i in plan.noted(N_NAMED)],
        "remarks": list(remarks),
        "splits": {
            split: {
                "utterances": index["n_documents"],
                "seconds": round(_frames(index) / frame_rate, 3),
                "speakers": plan.count_speakers(split),
                "tokens": index["n_tokens"],
            }
            for split, index in indices.items()
        },
        "reference": {name: reference.measures.numbers() for name, reference in references.items()},
    }


def _frames(index: Mapping[str, Any]) -> int:
    """Frames of all documents, each of which has two tokens besides: its beginning and its end."""
    return int(index["n_tokens"] - 2 * index["n_documents"]) // Vocabulary(**index["vocabulary"]).n_codebooks


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
