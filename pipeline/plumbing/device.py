"""Which device a model runs on: as the configuration names it, and as torch does. Light until one is asked for."""

import typing

if typing.TYPE_CHECKING:
    import torch

DEVICES = ("auto", "cpu", "cuda")


def check_device(key: str, name: str) -> None:
    """Refuse what is no choice.

    Raises:
        ValueError: naming the key, and the choices.
    """
    if name not in DEVICES:
        raise ValueError(f"{key} is '{name}'; choose one of {', '.join(DEVICES)}.")


def device_of(name: str) -> "torch.device":
    """The device of a choice; `auto` is a GPU where torch sees one.

    Raises:
        ValueError: when a GPU is asked for, and there is none.
    """
    import torch

    has_gpu = torch.cuda.is_available()
    if name == "cuda" and not has_gpu:
        raise ValueError("device is cuda, and torch sees no GPU here; choose auto or cpu.")
    return torch.device("cuda" if has_gpu and name != "cpu" else "cpu")
