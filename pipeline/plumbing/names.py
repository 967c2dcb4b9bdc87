"""Names from strangers' disks, as they can stand in a line of text."""


def printable(name: str) -> str:
    """The name with control characters, and those that turn the direction of text, escaped."""
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in name)


def is_utf8(name: str) -> bool:
    """Whether a name from the disk is text: Python keeps bytes that are none as lone surrogates."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def as_utf8(name: str) -> str:
    """The name with bytes that are no text escaped."""
    return name.encode(errors="surrogateescape").decode(errors="backslashreplace")
