import numpy as np

from pipeline.reporting.figures.specialisation import MAX_PANELS, chosen_layers, preference_heat_maps


def test_few_layers_are_all_drawn_and_of_many_the_first_and_last_too():
    assert chosen_layers(["1", "2", "3"]) == ["1", "2", "3"]
    drawn = chosen_layers([str(layer) for layer in range(3, 61)])
    assert len(set(drawn)) == MAX_PANELS
    assert (drawn[0], drawn[-1]) == ("3", "60")


def test_every_layer_has_a_map_with_its_rows_named():
    svg = preference_heat_maps(
        {"1": np.ones((2, 4)), "5": np.full((2, 4), np.nan)}, ["codebook 0", "codebook 1"], "a", "b"
    )
    for text in ("layer 1", "layer 5", "codebook 0", "codebook 1"):
        assert f">{text}<" in svg


def test_names_of_speakers_stay_text():
    assert "<script>" not in preference_heat_maps({"1": np.ones((1, 2))}, ["<script>alert(1)</script>"], "a", "b")
