import numpy as np
import pytest
from scipy.signal import welch

from pipeline.audio.measures.controls import CONTROL_KINDS, control_signals
from pipeline.audio.measures.flatness import spectral_flatness


@pytest.mark.parametrize("kind", CONTROL_KINDS)
@pytest.mark.parametrize("sample_rate", [8000, 16000])
def test_signals_are_levelled_bounded_and_of_the_length_asked_for(kind, sample_rate):
    signals = control_signals(kind, 3, 1.25, sample_rate, seed=0)
    assert len(signals) == 3
    for signal in signals:
        assert signal.dtype == np.float32
        assert signal.shape == (round(1.25 * sample_rate),)
        assert 20 * np.log10(np.sqrt(np.mean(signal.astype(np.float64) ** 2))) == pytest.approx(-23, abs=0.01)
        assert np.abs(signal).max() < 1


@pytest.mark.parametrize("kind", CONTROL_KINDS)
def test_signals_depend_on_the_seed_and_their_number_alone(kind):
    few, many = control_signals(kind, 2, 0.5, 8000, seed=1), control_signals(kind, 3, 0.5, 8000, seed=1)
    for a, b in zip(few, many, strict=False):
        np.testing.assert_array_equal(a, b)
    assert not np.array_equal(many[0], many[1])
    assert not np.array_equal(many[0], control_signals(kind, 1, 0.5, 8000, seed=2)[0])


@pytest.mark.parametrize(
    ("kind", "low", "high"),
    [
        ("tone", 0, 2e-7),
        ("melody", 0, 1e-6),
        ("beeps", 1e-4, 1e-2),
        ("pink_noise", 0.6, 0.7),
        ("white_noise", 0.99, 1.0),
    ],
)
def test_signals_are_as_flat_as_their_names_say(kind, low, high):
    values = [spectral_flatness(signal, 8000) for signal in control_signals(kind, 4, 4.0, 8000, seed=0)]
    assert low < np.median(values) < high


@pytest.mark.parametrize(("kind", "slope_db"), [("white_noise", 0.0), ("pink_noise", -3.01)])
def test_noise_falls_off_as_it_should(kind, slope_db):
    frequencies, power = welch(control_signals(kind, 1, 30.0, 8000, seed=0)[0], 8000, nperseg=1024)
    octaves = [10 * np.log10(power[(frequencies >= f) & (frequencies < 2 * f)].mean()) for f in (200, 400, 800, 1600)]
    np.testing.assert_allclose(np.diff(octaves), slope_db, atol=0.4)


def test_beeps_are_silent_half_of_the_time():
    signal = control_signals("beeps", 1, 2.0, 8000, seed=0)[0]
    edges = np.flatnonzero(np.diff(np.abs(signal[: len(signal) // 100 * 100]).reshape(-1, 100).max(axis=1) > 0))
    assert len(edges) == 11  # six beeps in two seconds
    assert np.mean(signal == 0) == pytest.approx(0.5, abs=0.01)


def test_an_unknown_kind_names_the_known_ones():
    with pytest.raises(ValueError, match="no control signal 'hum'; choose one of tone"):
        control_signals("hum", 1, 1.0, 8000, seed=0)
