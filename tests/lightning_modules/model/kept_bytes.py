"""How much a forward pass keeps for the backward pass."""

import gc

import torch
from torch import Tensor, nn

from lightning_modules.model.decoder import Decoder, DecoderOutput


def tensors_in_memory() -> list[Tensor]:
    """The process's tensors with a storage: a compilation in another test may have left some without any."""
    with_storage = (Tensor, nn.Parameter)
    return [t for t in gc.get_objects() if type(t) in with_storage and not torch._is_functional_tensor(t)]


def kept_bytes(decoder: Decoder, tokens: Tensor) -> tuple[int, DecoderOutput]:
    """Bytes of activations that live between the forward and the backward pass, and what the forward pass returned."""
    held: dict[int, tuple[int, Tensor]] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        held[storage.data_ptr()] = (storage.nbytes(), tensor)
        return tensor

    gc.collect()
    before = {tensor.untyped_storage().data_ptr() for tensor in tensors_in_memory()}
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        output = decoder(tokens)
    # What recomputation keeps lies in Python, out of the hooks' sight.
    for tensor in tensors_in_memory():
        note(tensor.detach())
    return sum(size for pointer, (size, _) in held.items() if pointer not in before), output
