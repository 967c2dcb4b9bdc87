"""Tables that other stages wrote, read cell by cell."""

from pathlib import Path

from pipeline.plumbing.files import read_csv


def read_rows(path: Path, required: tuple[str, ...] = ()) -> list[dict[str, str]]:
    """The rows of a CSV file that another stage wrote; none where it does not exist.

    Raises:
        ValueError: naming the row that is too long, or the column that is missing.
    """
    rows = read_csv(path) if path.exists() else []
    for i, row in enumerate(rows):
        if None in row:
            raise ValueError(f"{path}, row {i + 1} has more cells than the header; run the stage that writes it again.")
    missing = [column for column in required if rows and column not in rows[0]]
    if missing:
        raise ValueError(f"{path} has no column {missing[0]!r}; run the stage that writes it again.")
    return rows


def read_number(path: Path, row: int, column: str, cell: str | None) -> float:
    """A cell as a number; blank is NaN.

    Raises:
        ValueError: naming the place of what is no number.
    """
    if not cell:
        return float("nan")
    try:
        return float(cell)
    except ValueError:
        raise ValueError(
            f"{path}, row {row + 1}, column {column!r}: {cell!r} is not a number; run the stage that writes it again."
        ) from None
