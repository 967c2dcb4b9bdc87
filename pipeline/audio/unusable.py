"""The verdict on a recording that cannot be used."""


class UnusableRecording(Exception):  # noqa: N818 - a verdict on a recording, which the caller lists, more than an error
    """A recording that cannot be used.

    Attributes:
        reason: why, in a few words that fit a table cell.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class TooLongRecording(UnusableRecording):
    """A recording that goes on for longer than is wanted."""
