import torch

from lightning_modules.precision.traced_constant import traced_constant


def answer() -> int:
    return 1


def question() -> int:
    return 2


def test_the_mark_is_the_one_that_torch_sets() -> None:
    assert vars(traced_constant(answer)) == vars(torch.compiler.assume_constant_result(question)) != {}
