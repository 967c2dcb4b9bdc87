"""The description of a run: sections of Markdown, each written by the stage that knows; what people wrote stays."""

import re

NOTE_TAG = "mlflow.note.content"
# The order of our sections; any others come behind.
VERDICT, SOUND, TRAINING = "Verdict", "Listen", "Training"
ORDER = (VERDICT, SOUND, TRAINING)
_HEADING = re.compile(r"(?m)^### +(.*?) *$\n?")


def with_section(note: str, title: str, text: str) -> str:
    """The note with a section of this title in the place of the one that it had, or in its turn."""
    preface, *rest = _HEADING.split(note)
    sections = dict(zip(rest[::2], (body.strip() for body in rest[1::2]), strict=True))
    sections[title] = text.strip()
    turns = {name: ORDER.index(name) if name in ORDER else len(ORDER) for name in sections}
    ordered = [f"### {name}\n{sections[name]}" for name in sorted(sections, key=lambda name: turns[name])]
    return "\n\n".join([*([preface.strip()] if preface.strip() else []), *ordered])
