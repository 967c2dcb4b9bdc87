import pytest

from lightning_modules.parallel.configuration import ParallelConfig, mesh_sizes


def test_ranks_that_share_windows_are_one_reader() -> None:
    config = ParallelConfig(dp_shard=2, cp=3, ep=2)
    assert mesh_sizes(config, 12) == (1, 2, 3, 2)
    # Of (dp_shard, cp, ep) those with the same first and last place.
    assert [config.reader(rank) for rank in range(12)] == [0, 1, 0, 1, 0, 1, 2, 3, 2, 3, 2, 3]
    assert [ParallelConfig(ep=2).reader(rank) for rank in range(4)] == [0, 1, 2, 3]


def test_sizes_and_lengths_that_do_not_divide_are_named() -> None:
    with pytest.raises(ValueError, match=r"strategy.cp \(3\) × strategy.ep \(1\) = 3 does not divide"):
        mesh_sizes(ParallelConfig(cp=3), 4)
    with pytest.raises(ValueError, match=r"× strategy.cp \(2\) × strategy.ep \(1\) = 2, but there are 4"):
        mesh_sizes(ParallelConfig(dp_shard=1, cp=2), 4)
    with pytest.raises(ValueError, match=r"\(4098\) does not divide over 2 × strategy.cp \(4\) = 8.*4104"):
        ParallelConfig(cp=4).check_length(4098)
    with pytest.raises(ValueError, match="strategy.cp is 0"):
        ParallelConfig(cp=0)
    ParallelConfig().check_length(4097)
