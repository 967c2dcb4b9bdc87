"""One digest of many values, which tells two inputs apart."""

import hashlib
import json
from typing import Any


def fingerprint(*values: Any) -> str:
    """The SHA-256 of the values as JSON, keys sorted, in hexadecimal."""
    return hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode()).hexdigest()
