"""Which experts tokens of one kind are given, layer by layer."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import TwoSlopeNorm
from matplotlib.ticker import FuncFormatter

from pipeline.reporting.figures.balance import IDLE_TO_BUSY
from pipeline.reporting.figures.style import INK, WIDE, new_figure, styled, to_svg
from pipeline.reporting.formatting import short

N_COLUMNS = 4
MAX_PANELS = 12
MAX_LABELS = 9
# Two panels a row have room for the names of speakers.
LONG_NAME = 12


def chosen_layers(layers: Sequence[str]) -> list[str]:
    """The layers that are drawn: all, or some evenly apart with the first and the last among them."""
    places = np.linspace(0, len(layers) - 1, min(len(layers), MAX_PANELS)).round().astype(int)
    return [layers[place] for place in places]


@styled
def preference_heat_maps(panels: Mapping[str, np.ndarray], rows: Sequence[str], name: str, label: str) -> Markup:
    """Draw one small map a layer, cells [rows, experts] as multiples of what chance gives: 1 is pale.

    Args:
        panels: {layer: cells}; NaN stays empty.
        rows: what the rows are called.
        name: the figure's, which keeps its ids apart from others'.
        label: what it shows, for a screen reader.
    """
    n_columns = min(len(panels), N_COLUMNS if max(map(len, rows)) <= LONG_NAME else N_COLUMNS // 2)
    n_lines = math.ceil(len(panels) / n_columns)
    height = 70 + n_lines * (70 + min(16 * len(rows), 220))
    figure = new_figure(WIDE, height)
    grid = figure.subplots(n_lines, n_columns, squeeze=False, sharex=True, sharey=True)
    highest = max(2.0, *(float(np.nanmax(cells, initial=0.0)) for cells in panels.values()))
    norm = TwoSlopeNorm(vmin=0.0, vcenter=1.0, vmax=highest)
    for axes, (layer, cells) in zip(grid.flat, panels.items(), strict=False):
        axes.pcolormesh(np.ma.masked_invalid(cells), cmap=IDLE_TO_BUSY, norm=norm, rasterized=cells.size > 400)
        _label(axes, layer, rows, cells.shape[1])
    for axes in list(grid.flat)[len(panels) :]:
        axes.set_visible(False)
    bar = figure.colorbar(ScalarMappable(norm, IDLE_TO_BUSY), ax=grid, aspect=max(6, height / 16), pad=0.015)
    bar.outline.set_visible(False)
    bar.set_ticks([0.0, 0.5, 1.0, (1.0 + highest) / 2, highest])
    bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{short(value)}×"))
    return to_svg(figure, name, label)


def _label(axes: Axes, layer: str, rows: Sequence[str], n_experts: int) -> None:
    every_row, every_expert = (max(1, math.ceil(n / MAX_LABELS)) for n in (len(rows), n_experts))
    axes.set_title(f"layer {layer}", fontsize=11, color=INK)
    axes.set_yticks([row + 0.5 for row in range(0, len(rows), every_row)], rows[::every_row])
    experts = range(0, n_experts, every_expert)
    axes.set_xticks([expert + 0.5 for expert in experts], [str(expert) for expert in experts])
    axes.set_xlabel("expert")
    axes.label_outer()
    # After the limits: shared axes would turn once for each of them.
    axes.set_ylim(len(rows), 0)
    axes.grid(False)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
