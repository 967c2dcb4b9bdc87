from pathlib import Path

import numpy as np
import pytest

from pipeline.reporting.specialisation import read_pairs, read_preferences


def test_preferences_are_read_by_kind_layer_and_group(tmp_path: Path) -> None:
    table = tmp_path / "expert_preferences.csv"
    table.write_text(
        "layer,kind,group,expert,preference\n"
        "1,codebook,0,0,1.5\n1,codebook,0,1,0.5\n1,codebook,1,0,0.5\n1,codebook,1,1,1.5\n"
        "2,codebook,1,0,2\n2,codebook,1,1,0\n1,speaker,anna,0,1\n1,speaker,anna,1,1\n"
    )
    read = read_preferences(table)
    assert read["codebook"].groups == ("0", "1")
    assert read["codebook"].layers["1"].tolist() == [[1.5, 0.5], [0.5, 1.5]]
    np.testing.assert_equal(read["codebook"].layers["2"], [[np.nan, np.nan], [2, 0]])
    assert read["speaker"].groups == ("anna",)


def test_pairs_are_read_both_ways_round(tmp_path: Path) -> None:
    table = tmp_path / "expert_pairs.csv"
    table.write_text("layer,expert,other,lift\n3,0,2,1.25\n")
    nan = np.nan
    np.testing.assert_equal(read_pairs(table)["3"], [[nan, nan, 1.25], [nan, nan, nan], [1.25, nan, nan]])


def test_evaluations_without_the_tables_have_nothing_to_draw(tmp_path: Path) -> None:
    assert read_preferences(tmp_path / "none.csv") == {}
    assert read_pairs(tmp_path / "none.csv") == {}


def test_a_cell_that_is_no_number_is_named(tmp_path: Path) -> None:
    table = tmp_path / "expert_pairs.csv"
    table.write_text("layer,expert,other,lift\n3,0,2,much\n")
    with pytest.raises(ValueError, match=r"expert_pairs.csv, row 1, column 'lift': 'much' is not a number"):
        read_pairs(table)
