"""The look all figures share, and how a Matplotlib figure becomes a piece of the page.

Colours are drawn as placeholders and turned into the page's CSS variables, so that a figure follows the page from
light to dark to print. Text stays text in the page's own font.
"""

import io
import re
from typing import Any

import matplotlib
from markupsafe import Markup, escape
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

INK = "#010a01"
MUTED = "#020a02"
GRID = "#030a03"
PAPER = "#040a04"
MODEL = "#050a05"
SECOND = "#060a06"
THIRD = "#070a07"
FOURTH = "#080a08"
REAL = "#090a09"
BAND = "#0a0a0b"
SHADES = ("#0b0a0b", "#0c0a0c", "#0d0a0d")

CSS_VARIABLES = {
    INK: "--ink",
    MUTED: "--muted",
    GRID: "--grid",
    PAPER: "--card",
    MODEL: "--model",
    SECOND: "--second",
    THIRD: "--third",
    FOURTH: "--fourth",
    REAL: "--real",
    BAND: "--band",
    **{shade: f"--shade-{i + 1}" for i, shade in enumerate(SHADES)},
}

# CSS pixels at full size: the whole text column, and half of it.
WIDE, HALF = 1116, 542

SERIES = (MODEL, SECOND, THIRD, FOURTH)

STYLE: dict[Any, Any] = {
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    "font.size": 11,
    "axes.labelsize": 11,
    "xtick.labelsize": 11,
    "ytick.labelsize": 11,
    "legend.fontsize": 11,
    "text.color": INK,
    "text.parse_math": False,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": GRID,
    "axes.linewidth": 1.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "axes.unicode_minus": True,
    "axes.formatter.use_mathtext": False,
    "grid.color": GRID,
    "grid.linewidth": 1.0,
    "xtick.color": GRID,
    "ytick.color": GRID,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "xtick.major.size": 3,
    "ytick.major.size": 0,
    "xtick.minor.size": 0,
    "ytick.minor.size": 0,
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
    "legend.frameon": False,
    "legend.handlelength": 1.2,
    "svg.fonttype": "none",
    # Fixed, so that the same numbers give the same page.
    "svg.hashsalt": "melisma",
}

# Decorates every function that draws: the style applies inside it and nowhere else.
styled = matplotlib.rc_context(STYLE)


def new_figure(width: float, height: float, constrained: bool = True) -> Figure:
    """Return an empty figure of `width` by `height` CSS pixels at full size."""
    figure = Figure(figsize=(width / 72, height / 72), layout="constrained" if constrained else None)
    FigureCanvasAgg(figure)
    return figure


@styled
def to_svg(figure: Figure, name: str, description: str) -> Markup:
    """Render a figure as an `<svg>` element for an HTML page.

    `name` keeps its ids apart from those of the page's other figures, and `description` is what a screen reader says.
    """
    buffer = io.StringIO()
    nothing = {"Date": None, "Creator": None, "Format": None, "Type": None}
    figure.savefig(buffer, format="svg", metadata=nothing)
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    width, height = (round(72 * inches) for inches in figure.get_size_inches())
    svg = svg[svg.index(">") + 1 :]
    svg = re.sub(r"<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = svg.replace("xlink:href", "href").replace("data:image/png;base64,\n", "data:image/png;base64,")
    svg = re.sub(r"font-family: [^;\"]*;?", "", svg)
    # Matplotlib asks for visible pixels; a spectrogram reads better smooth.
    svg = svg.replace("image-rendering:crisp-edges;image-rendering:pixelated", "")
    svg = _private_ids(svg, name)
    for placeholder, variable in CSS_VARIABLES.items():
        svg = svg.replace(placeholder, f"var({variable})")
    opening = Markup('<svg viewBox="0 0 {} {}" style="max-width:{}px" role="img" aria-label="{}">').format(
        width, height, width, description
    )
    return opening + Markup(svg)


def _private_ids(svg: str, name: str) -> str:
    """Prefix the ids that something in the figure refers to with its name, and drop the others."""
    prefix = escape(re.sub(r"\W+", "-", name))
    used = set(re.findall(r'(?:url\(|href=")#([^)"]+)', svg))
    svg = re.sub(r' id="([^"]*)"', lambda match: f' id="{prefix}-{match[1]}"' if match[1] in used else "", svg)
    return re.sub(r'(url\(|href=")#', rf"\g<1>#{prefix}-", svg)
