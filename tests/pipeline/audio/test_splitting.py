import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.audio.configuration import SplitConfig
from pipeline.audio.splitting import SPLITS, seeded_hash, split_sizes


def test_fractions_of_the_groups() -> None:
    assert split_sizes(400, SPLITS, SplitConfig("file", 0.05, 0.1)) == {"validation": 20, "test": 40}
    # One that the corpus publishes is not drawn, and where it publishes training too, all may be held out.
    assert split_sizes(400, ("train", "test"), SplitConfig("file", 0.05, 0.1)) == {"test": 40}
    assert split_sizes(1, ("test",), SplitConfig("file", 0.05, 0.1)) == {"test": 1}
    assert split_sizes(400, (), SplitConfig("file", 0.05, 0.1)) == {}


@given(st.integers(3, 3000), st.floats(0.01, 0.49), st.floats(0.01, 0.49))
def test_each_split_gets_a_group(n_groups: int, validation: float, test: float) -> None:
    sizes = split_sizes(n_groups, SPLITS, SplitConfig("speaker", validation, test))
    assert min(*sizes.values(), n_groups - sum(sizes.values())) >= 1


def test_too_few_groups() -> None:
    with pytest.raises(ValueError, match="needs at least 3 speakers.*corpus has 2; set data.split.by=file"):
        split_sizes(2, SPLITS, SplitConfig("speaker", 0.1, 0.1))
    with pytest.raises(ValueError, match="needs at least 3 files.*corpus has 0; add recordings"):
        split_sizes(0, SPLITS, SplitConfig("file", 0.1, 0.1))


def test_the_seed_decides_on_the_order() -> None:
    orders = {tuple(sorted("abcdefgh", key=lambda name: seeded_hash(name, seed))) for seed in range(5)}  # noqa: B023
    assert len(orders) == 5


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (("day", 0.1, 0.1), "data.split.by"),
        (("file", 0, 0.1), "data.split.validation"),
        (("file", 0.1, 1.0), "data.split.test"),
        (("file", 0.5, 0.5), "something to train on"),
    ],
)
def test_configuration_names_the_key(values, message):
    with pytest.raises(ValueError, match=message):
        SplitConfig(*values)
