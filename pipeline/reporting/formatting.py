"""Numbers and configuration values as a reader wants to see them."""

import math
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from pipeline.plumbing.redaction import redacted

SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
ABSENT = "–"
PERCENTAGE = re.compile(r"(\d) %")


def number(value: float | None, digits: int = 3) -> str:
    """Format to `digits` significant digits, never dropping digits before the decimal point.

    Small values keep their leading digits (0.0008 reads 0.000800) and very small ones turn to a power of ten;
    a missing or undefined value reads as a dash.
    """
    if value is None or math.isnan(value):
        return ABSENT
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if value == 0:
        return "0"
    rounded = float(f"{value:.{digits - 1}e}")
    exponent = math.floor(math.log10(abs(rounded)))
    if exponent < -4:
        text = f"{value / 10.0**exponent:.1f} × 10{str(exponent).translate(SUPERSCRIPT)}"
    elif exponent >= digits - 1:
        text = f"{value:,.0f}"
    else:
        text = f"{rounded:.{digits - 1 - exponent}f}"
    return text.replace("-", "−")


def short(value: float | None, digits: int = 2) -> str:
    """Format like `number`, without trailing zeros: a round limit of 0.5 or a tick of 4."""
    text = number(value, digits)
    return text.rstrip("0").rstrip(".") if "." in text and "×" not in text else text


def fixed(value: float | None, decimals: int) -> str:
    """Format with a fixed number of decimals, for columns of one unit; a missing value reads as a dash."""
    if value is None or math.isnan(value):
        return ABSENT
    return f"{value:,.{decimals}f}".replace("-", "−")


def bounds(low: float, high: float, form: Callable[[float], str]) -> str:
    """Format the bounds of an interval, each as `form` does; empty where there is none."""
    return "" if math.isnan(low) or math.isnan(high) else f"{form(low)} to {form(high)}"


def power_of_ten(value: float) -> str:
    """Format a power of ten for an axis: 1,000 and 0.1 in full, 10⁻⁷ as a power."""
    exponent = round(math.log10(value))
    return short(value) if -3 <= exponent <= 6 else f"10{str(exponent).translate(SUPERSCRIPT)}"


def count(value: float | None) -> str:
    """Format a whole number with thousands separators."""
    if value is None or math.isnan(value):
        return ABSENT
    return f"{round(value):,}".replace("-", "−")


def compact(value: float) -> str:
    """Format a large count in thousands, millions or billions: 2.9 M."""
    for scale, suffix in ((1e9, " B"), (1e6, " M"), (1e3, " k")):
        if abs(value) >= scale:
            return f"{value / scale:.3g}{suffix}"
    return count(value)


def percent(fraction: float) -> str:
    """Format a fraction as a percentage of two significant digits or more; an undefined one reads as a dash."""
    return ABSENT if math.isnan(fraction) else f"{number(100 * fraction, 2)} %"


def unbroken(text: str) -> str:
    """Keep each percentage of a text, or of a page, on one line."""
    return PERCENTAGE.sub("\\1\N{NO-BREAK SPACE}%", text)


def duration(seconds: float | None) -> str:
    """Format seconds as the two largest units that matter: 4.2 s, 12 min 05 s, 1 h 02 min."""
    if seconds is None or math.isnan(seconds):
        return ABSENT
    if seconds < 60:
        return f"{seconds:.1f} s"
    if seconds < 3600:
        minutes, rest = divmod(round(seconds), 60)
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes:02d} min"


def plain(value: Any) -> str:
    """Write a configuration value the way its YAML does, without secrets."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return f"[{', '.join(plain(item) for item in value)}]"
    return redacted(str(value))


def cell(text: str) -> str:
    """Keep a text within its cell of a Markdown table: one line, and bars that part nothing."""
    return " ".join(text.split()).replace("|", "\\|")


def flatten(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield (dotted key, value as text) for every leaf of a nested mapping; an empty branch is a leaf."""
    for key, value in tree.items():
        path = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            yield from flatten(value, f"{path}.")
        else:
            yield path, "{}" if isinstance(value, Mapping) else plain(value)


def as_mapping(value: Any) -> Mapping[str, Any]:
    """Return a mapping from a file as it is, and anything else as an empty one."""
    return value if isinstance(value, Mapping) else {}


def as_number(value: Any) -> float:
    """Read a leaf of a JSON file as a number; NaN where it is absent or not one."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return math.nan
    return float(value)
