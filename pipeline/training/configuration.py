"""What training reads, as configured. Needs no torch."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from pipeline.configuration.settings import check_known
from pipeline.plumbing.redaction import redacted, uri_user

DROP, KEEP = "drop", "keep"


@dataclass(frozen=True)
class FeedConfig:
    """What training reads beside, or instead of, the train split of `paths.prepared`.

    Attributes:
        mixture: folders of prepared data by how much of the tokens is each one's, up to a common factor; None: the
            usual one alone.
        max_document_tokens: of longer documents only so many first tokens are trained on; None: all.
        duplicates: what becomes of a mixture's training documents whose audio is held out in any of its corpora, or
            trained on in an earlier one: `drop` or `keep`.
    """

    LARGEST: ClassVar[Mapping[str, float]] = {"max_document_tokens": 2**40}

    mixture: Mapping[str, float] | None
    max_document_tokens: int | None
    duplicates: str = DROP

    def __post_init__(self) -> None:
        if self.mixture is not None:
            _check_mixture(self.mixture)
        check_known("duplicates", self.duplicates, (DROP, KEEP))
        if self.max_document_tokens is not None and self.max_document_tokens < 2:
            raise ValueError(f"max_document_tokens is {self.max_document_tokens}; set it to 2 or more, or null.")


def _check_mixture(mixture: object) -> None:
    if not isinstance(mixture, Mapping) or not mixture:
        raise ValueError(
            f"mixture is {mixture!r}; it takes prepared folders and their shares, as "
            "{data/prepared_a: 0.7, data/prepared_b: 0.3}, or null."
        )
    for folder, weight in mixture.items():
        if not isinstance(folder, str) or not folder.strip() or not folder.isprintable():
            raise ValueError(f"mixture names {folder!r}; it takes folders of prepared data.")
        if uri_user(folder):
            raise ValueError(
                f"mixture names {redacted(folder)} with a password; credentials belong in the environment."
            )
        is_number = isinstance(weight, int | float) and not isinstance(weight, bool)
        if not is_number or not math.isfinite(weight) or weight <= 0:
            raise ValueError(f"mixture gives {folder} the share {weight!r}; give it a number above 0, or leave it out.")
