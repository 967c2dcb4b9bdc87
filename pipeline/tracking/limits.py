"""Names and values in the shape MLflow accepts: it refuses a whole batch for one bad entry."""

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

from pipeline.plumbing.nested import leaves
from pipeline.plumbing.redaction import redacted

KEY_LENGTH = 250
PARAMETER_LENGTH = 6000
# MLflow accepts 8000; stores that were made by older releases hold 5000.
TAG_LENGTH = 5000
DIGEST_LENGTH = 36


def valid_key(key: str) -> str:
    """The nearest name that MLflow accepts: letters, digits, `_-.: ` and single slashes, at most 250 characters.

    A name that is cut ends in a digest of the whole, so that two long names stay apart.
    """
    parts = re.sub(r"[^/\w.\- :]", "_", str(key)).split("/")
    name = "/".join(part for part in parts if part not in ("", ".", "..")) or "_"
    if len(name) <= KEY_LENGTH:
        return name
    return f"{name[: KEY_LENGTH - 9]}.{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def shortened(text: str, length: int) -> str:
    """The text, cut to `length` characters with an ellipsis at the end where it is longer."""
    return text if len(text) <= length else text[: length - 1] + "…"


def flatten(values: Mapping[str, Any]) -> dict[str, str]:
    """Nested values as MLflow parameters: `{"model": {"n": 2}}` becomes `{"model.n": "2"}`.

    Lists, booleans and None are written as JSON.
    """
    return {valid_key(key): shortened(_text(value), PARAMETER_LENGTH) for key, value in leaves(values)}


def valid_tags(tags: Mapping[str, str]) -> dict[str, str]:
    """Tags with names and values that MLflow accepts, without secrets."""
    return {valid_key(key): shortened(redacted(str(value)), TAG_LENGTH) for key, value in tags.items()}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
