"""Checks that the codecs' configurations share; their errors name the key."""

import math

# Slaney's mel scale: linear up to 1 kHz, logarithmic above.
HZ_A_MEL = 200 / 3
FIRST_LOGARITHMIC_HZ = 1000.0
FIRST_LOGARITHMIC_MEL = FIRST_LOGARITHMIC_HZ / HZ_A_MEL
LOG_STEP = math.log(6.4) / 27


def require_integer(config: object, name: str, minimum: int, maximum: int | None = None) -> None:
    """Raise a ValueError unless the field is an integer of at least `minimum` and at most `maximum`."""
    value = getattr(config, name)
    bounds = f"at least {minimum}" if maximum is None else f"between {minimum} and {maximum}"
    integer = isinstance(value, int) and not isinstance(value, bool)
    if not integer or value < minimum or (maximum is not None and value > maximum):
        raise ValueError(f"codec.{name} must be an integer of {bounds}, not {value!r}.")


def require_number(config: object, name: str, minimum: float = -math.inf, maximum: float = math.inf) -> None:
    """Raise a ValueError unless the field is a finite number within the bounds, both included."""
    value = getattr(config, name)
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or not minimum <= value <= maximum:
        raise ValueError(f"codec.{name} must be a finite number between {minimum:g} and {maximum:g}, not {value!r}.")


def require_loudness(config: object) -> None:
    """Raise a ValueError unless `loudness_db` is a level that speech can have without clipping throughout."""
    require_number(config, "loudness_db", -70.0, 0.0)


def n_empty_bands(sample_rate: int, n_fft: int, n_mels: int, f_min: float, f_max: float) -> int:
    """How many triangular bands, equally wide on Slaney's mel scale from f_min to f_max in Hz, hold no frequency bin.

    `log_mel.mel_filterbank` builds these bands.
    """
    bin_hz = (sample_rate // 2) / (n_fft // 2)
    low, high = _mel(f_min), _mel(f_max)
    edges = [_hz(low + (high - low) * edge / (n_mels + 1)) for edge in range(n_mels + 2)]
    return sum((math.floor(left / bin_hz) + 1) * bin_hz >= right for left, right in zip(edges, edges[2:], strict=False))


def _mel(hz: float) -> float:
    if hz < FIRST_LOGARITHMIC_HZ:
        return hz / HZ_A_MEL
    return FIRST_LOGARITHMIC_MEL + math.log(hz / FIRST_LOGARITHMIC_HZ) / LOG_STEP


def _hz(mel: float) -> float:
    if mel < FIRST_LOGARITHMIC_MEL:
        return mel * HZ_A_MEL
    return FIRST_LOGARITHMIC_HZ * math.exp(LOG_STEP * (mel - FIRST_LOGARITHMIC_MEL))
