"""Text without secrets: what every border applies before a word leaves the process.

A border is where text is kept or shown: a run's record, its journal, a log line, an error message.
"""

import logging
import os
import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import unquote

HIDDEN = "***"
# Words that stand for a secret where they name an environment variable, an option of a URI or a setting.
_WORDS = r"password|passwd|pwd|passphrase|secret|token|api[_-]?key|access[_-]?key|credentials?|signature|sig|auth"
_SECRET_NAME = re.compile(rf"(?:^|[_.\-])(?:{_WORDS})(?:$|[_.\-])", re.IGNORECASE)
# The rest of a URI behind its scheme; a quotation mark or an angle bracket ends it, as in JSON and HTML.
_URI = re.compile(r"\b([a-z][a-z0-9+.\-]*)://([^\s\"<>]*)", re.IGNORECASE)
_OPTION = re.compile(
    rf"([?&;](?:[\w.\-]*[_.\-])?(?:{_WORDS}|sslpassword|odbc_connect)(?:[_.\-][\w.\-]*)?=)[^&;#\s\"'<>]+", re.IGNORECASE
)
_HEADER = re.compile(r"\b(Bearer|Basic)\s+[A-Za-z0-9+/=._~\-]{6,}")
# Schemes whose rest is a path: an @ in it is part of a name.
_PATHS = re.compile(r"(sqlite(\+\w+)?|file)$", re.IGNORECASE)
# The shell's working directory, and no password: it begins every path that is shown.
_NO_SECRET = "PWD"
# Shorter values than this occur in any text by chance.
_SHORTEST = 6


def redacted(text: str) -> str:
    """The text without the credentials of URIs, authorisation headers, and values of secret environment variables."""
    for secret in sorted(set(_secrets_of_the_environment()), key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    text = _URI.sub(lambda match: f"{match[1]}://{_without_user(match[1], match[2])}", text)
    return _HEADER.sub(rf"\1 {HIDDEN}", _OPTION.sub(rf"\1{HIDDEN}", text))


def redacted_values(values: Any) -> Any:
    """Nested mappings and sequences with every text redacted, and what a secret's name holds hidden."""
    if isinstance(values, Mapping):
        return {
            key: HIDDEN if isinstance(value, str) and _SECRET_NAME.search(str(key)) else redacted_values(value)
            for key, value in values.items()
        }
    if isinstance(values, list | tuple):
        return [redacted_values(value) for value in values]
    return redacted(values) if isinstance(values, str) else values


def uri_user(uri: str) -> str:
    """The user and password that a URI carries, as written; empty without any."""
    scheme, _, rest = uri.partition("://")
    shown = _without_user(scheme, rest)
    return rest[: len(rest) - len(shown)].removesuffix("@")


class RedactingFormatter(logging.Formatter):
    """A formatter whose every line, tracebacks included, is redacted."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as a redacted line."""
        return redacted(super().format(record))


def _without_user(scheme: str, rest: str) -> str:
    """What follows `scheme://`, without `user:password@`.

    A password may hold what ends a host elsewhere (`/`, `?`, `#`): for a database, as SQLAlchemy reads it, and for a
    server whose port would otherwise be no number.
    """
    if "@" not in rest or _PATHS.match(scheme):
        return rest
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    if "@" in authority:
        return authority.rpartition("@")[2] + rest[len(authority) :]
    port = authority.partition(":")[2]
    if scheme.lower() in ("http", "https") and (not port or port.isdigit()):
        return rest
    return rest.rpartition("@")[2]


def _secrets_of_the_environment() -> Iterator[str]:
    for name, value in os.environ.items():
        if name == _NO_SECRET:
            continue
        if _SECRET_NAME.search(name):
            yield from _long_enough(value)
        elif "://" in value and "@" in value:
            password = uri_user(value).partition(":")[2]
            yield from _long_enough(password)
            yield from _long_enough(unquote(password))


def _long_enough(secret: str) -> Iterator[str]:
    if len(secret.strip()) >= _SHORTEST:
        yield secret.strip()
