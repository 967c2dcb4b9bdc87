"""How evenly the experts are used."""

from collections.abc import Mapping

import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, TwoSlopeNorm
from matplotlib.ticker import FuncFormatter

from pipeline.reporting.figures.style import PAPER, WIDE, new_figure, styled, to_svg
from pipeline.reporting.formatting import number, short

IDLE_TO_BUSY = LinearSegmentedColormap.from_list(
    "idle_to_busy", ["#1f5f8b", "#8fb6cc", "#f3efe6", "#e2a06f", "#a8431a"]
)
MAX_VECTOR_CELLS = 1024
MAX_WRITTEN_CELLS = 160


def relative_load(load: np.ndarray) -> np.ndarray:
    """Normalise the load [E] of one layer's experts to a mean of 1; NaN where nothing was routed."""
    mean = np.nanmean(load) if np.isfinite(load).any() else np.nan
    return load / mean if mean > 0 else np.full(load.shape, np.nan)


@styled
def load_heat_map(load: Mapping[str, np.ndarray]) -> Markup:
    """Draw layer by expert, each layer's load relative to an even share: 1 is pale, busier warm, idler blue."""
    cells = np.full((len(load), max(len(experts) for experts in load.values())), np.nan)
    for row, experts in zip(cells, load.values(), strict=True):
        row[: len(experts)] = relative_load(experts)
    n_layers, n_experts = cells.shape
    height = 96 + min(34 * n_layers, 420)
    figure = new_figure(WIDE, height)
    axes = figure.add_subplot()
    busiest = max(2.0, float(np.nanmax(cells))) if np.isfinite(cells).any() else 2.0
    norm = TwoSlopeNorm(vmin=0.0, vcenter=1.0, vmax=busiest)
    small = cells.size <= MAX_VECTOR_CELLS
    mesh = axes.pcolormesh(
        np.ma.masked_invalid(cells),
        cmap=IDLE_TO_BUSY,
        norm=norm,
        edgecolors=PAPER if small else "none",
        linewidth=2.0 if small else 0.0,
        rasterized=not small,
    )
    axes.invert_yaxis()
    axes.grid(False)
    axes.spines[:].set_visible(False)
    _label_cells(axes, list(load), n_experts)
    if cells.size <= MAX_WRITTEN_CELLS:
        _write_values(axes, cells, norm)
    bar = figure.colorbar(mesh, ax=axes, aspect=max(6, height / 16), pad=0.015)
    bar.outline.set_visible(False)
    bar.set_ticks([0.0, 0.5, 1.0, (1.0 + busiest) / 2, busiest])
    bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{short(value)}×"))
    return to_svg(figure, "expert-load", "Load of every expert in every layer, relative to an even share")


def _label_cells(axes: Axes, layers: list[str], n_experts: int) -> None:
    """Name experts and layers at the middle of their cells, skipping some where there are many."""
    every_expert, every_layer = max(1, n_experts // 16), max(1, len(layers) // 16)
    experts = range(0, n_experts, every_expert)
    axes.set_xticks([expert + 0.5 for expert in experts], [str(expert) for expert in experts])
    shown = range(0, len(layers), every_layer)
    axes.set_yticks([layer + 0.5 for layer in shown], [layers[layer] for layer in shown])
    axes.set(xlabel="expert", ylabel="layer")
    axes.tick_params(length=0)


def _write_values(axes: Axes, cells: np.ndarray, norm: TwoSlopeNorm) -> None:
    """Write each value into its cell, dark on pale and white on strong colours."""
    for (layer, expert), value in np.ndenumerate(cells):
        if np.isnan(value):
            continue
        red, green, blue, _ = matplotlib.colors.to_rgba(IDLE_TO_BUSY(norm(value)))
        pale = 0.299 * red + 0.587 * green + 0.114 * blue > 0.55
        colour = "#1d2226" if pale else "#ffffff"
        axes.text(expert + 0.5, layer + 0.5, number(value), ha="center", va="center", fontsize=10.5, color=colour)
