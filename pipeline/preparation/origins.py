"""Which utterance each document of a split is, who speaks it, and what is said."""

from dataclasses import asdict, dataclass, fields
from pathlib import Path

from pipeline.audio.utterances import Utterance
from pipeline.plumbing.files import read_csv, write_csv
from pipeline.preparation.plan import Plan
from pipeline.tokens.dataset import TokenDataset

TABLE = "utterances.csv"
REMEDY = "run prepare-data again"


@dataclass(frozen=True)
class Origin:
    """Where a document comes from; what is not known is empty.

    Attributes:
        utterance: its name.
        speaker: who speaks.
        transcript: what is said, where whole recordings with transcripts were used.
    """

    utterance: str
    speaker: str = ""
    transcript: str = ""


def write_origins(plan: Plan, split: str, folder: Path) -> None:
    """Write the table of a split's documents, utterance i being document i, beside its shards in `folder`."""
    rows = (
        {"document": number, **asdict(Origin(utterance.id, utterance.speaker, _transcript(utterance, plan)))}
        for number, utterance in enumerate(plan.utterances(split))
    )
    write_csv(folder / TABLE, rows, columns=["document", *(field.name for field in fields(Origin))])


def read_origins(split: TokenDataset) -> tuple[Origin, ...]:
    """The origins of a split's documents. Prepared data of earlier versions know none: documents have numbers then.

    Raises:
        ValueError: the table is of other documents.
    """
    path = split.folder / TABLE
    if not path.exists():
        return tuple(Origin(f"{split.folder.name} document {document}") for document in range(len(split)))
    rows = read_csv(path)
    try:
        numbers = [int(row["document"]) for row in rows]
        origins = tuple(Origin(row["utterance"], row["speaker"], row["transcript"]) for row in rows)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is no table of utterances ({error}); {REMEDY}.") from error
    if numbers != list(range(len(numbers))) or len(numbers) < len(split):
        raise ValueError(f"{path} lists {len(rows)} documents, {split.folder} holds {len(split)}; {REMEDY}.")
    # An excerpt holds the first documents alone.
    return origins[: len(split)]


def _transcript(utterance: Utterance, plan: Plan) -> str:
    """What is said in whole recordings, one after another; of a stretch of one nobody knows."""
    if any(piece.start is not None for piece in utterance.pieces):
        return ""
    said = [plan[piece.recording].recording.transcript or "" for piece in utterance.pieces]
    return " ".join(said) if all(said) else ""
