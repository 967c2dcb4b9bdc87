import numpy as np

from pipeline.reporting.figures.balance import load_heat_map, relative_load


def test_load_is_relative_to_an_even_share():
    np.testing.assert_allclose(relative_load(np.array([2.0, 6.0, 4.0])), [0.5, 1.5, 1.0])


def test_an_unused_layer_has_no_relative_load():
    assert np.isnan(relative_load(np.zeros(3))).all()
    assert np.isnan(relative_load(np.full(3, np.nan))).all()


def test_values_are_written_into_the_cells_of_layers_of_any_width():
    svg = load_heat_map({"1": np.array([1.0, 3.0]), "2": np.array([1.0, 1.0, 4.0])})
    for value in ("0.500", "1.50", "2.00"):
        assert f">{value}<" in svg


def test_an_idle_model_still_draws():
    assert "<svg" in load_heat_map({"1": np.zeros(4)})
