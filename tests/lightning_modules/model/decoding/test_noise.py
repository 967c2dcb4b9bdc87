"""Random numbers of rows: where they come from, and that nothing else moves them."""

import torch

from lightning_modules.model.decoding.noise import uniform


def splitmix64(state: int) -> int:
    """The output function, in Python's integers."""
    state = (state ^ state >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    state = (state ^ state >> 27) * 0x94D049BB133111EB % 2**64
    return state ^ state >> 31


def test_numbers_are_those_of_splitmix64() -> None:
    for seed in (0, 1, 2**62 - 1):
        start = splitmix64(seed)
        expected = [splitmix64((start + place * 0x9E3779B97F4A7C15) % 2**64) >> 40 for place in range(5)]
        actual = uniform(torch.tensor(seed), torch.arange(5))
        assert (actual * 2**24).tolist() == expected


def test_a_number_depends_on_its_seed_place_and_use_alone() -> None:
    seeds, places = torch.tensor([[3], [4], [3]]), torch.arange(6)
    together = uniform(seeds, places)
    assert torch.equal(together[0], together[2])
    assert torch.equal(together[1, 4:5], uniform(torch.tensor([4]), torch.tensor([4])))
    several = torch.stack([together[0], together[1], uniform(seeds[0], places, use=1)])
    assert len(several.unique()) == several.numel()


def test_numbers_are_spread_evenly_along_places_and_along_seeds() -> None:
    n, n_bins = 50_000, 20
    for numbers in (uniform(torch.tensor(7), torch.arange(n)), uniform(torch.arange(n), torch.tensor(3), use=2)):
        assert float(numbers.min()) >= 0
        assert float(numbers.max()) < 1
        counts = torch.histc(numbers, n_bins, 0, 1)
        assert float(((counts - n / n_bins) ** 2).sum() * n_bins / n) < 43.8  # 99.9 % with 19 degrees of freedom
        neighbours = torch.corrcoef(torch.stack((numbers[:-1], numbers[1:])))[0, 1]
        assert abs(float(neighbours)) < 4 / n**0.5
