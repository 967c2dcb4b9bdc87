"""What a section is, and how one is rendered."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from pipeline.reporting import formatting

# The loader reads the templates as package data; autoescape covers every value that is not already Markup.
TEMPLATES = Environment(
    loader=PackageLoader("pipeline.reporting", "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
TEMPLATES.filters.update(
    number=formatting.number,
    short=formatting.short,
    fixed=formatting.fixed,
    percent=formatting.percent,
    count=formatting.count,
    duration=formatting.duration,
    cell=formatting.cell,
)


@dataclass(frozen=True)
class Section:
    """One section of the page: its heading, its content as safe HTML, and what has to be known before reading it."""

    title: str
    html: Markup
    note: str = ""

    @property
    def anchor(self) -> str:
        """The id that links within the page lead to."""
        return re.sub(r"\W+", "-", self.title.lower()).strip("-")


def render_template(name: str, context: Mapping[str, Any]) -> Markup:
    """Render one template of the package with autoescaping; an undefined name in it is an error."""
    return Markup(TEMPLATES.get_template(name).render(context))


def absent(title: str, sentence: str) -> Section:
    """Return a section that only says, in a plain sentence, why it is empty."""
    return Section(title, Markup('<p class="absent">{}</p>').format(sentence))
