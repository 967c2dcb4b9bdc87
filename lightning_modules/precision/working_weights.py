"""Weights in BF16 that compute, beside FP32 masters that are trained (arXiv 2412.19437, section 3.3.2).

The masters stay the decoder that is initialised, saved, loaded and averaged: nothing outside a training step knows of a
second one. The second is built once the first has its weights. It runs forwards and backwards, its gradients are handed
to the masters, and whoever steps the masters rounds them into it.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from lightning_modules.model.decoder import Decoder
from lightning_modules.model.router import Router
from lightning_modules.model.sharded import local
from lightning_modules.precision.quantised import keep_copies


class WorkingWeights:
    """A decoder that computes with another's weights, rounded.

    Args:
        masters: whose FP32 weights are trained, on their device, sharded or whole.
        prepare: makes a decoder of the same architecture, on the meta device and in its working types, into what runs:
            converts its linear layers, shards it.

    Attributes:
        decoder: what runs; its blocks are compiled where the masters' are. Routers stay FP32 (arXiv 2412.19437,
            section 3.3.1), and their buffers are the masters' own.
        pairs: every master and its working weight; their shards on this rank are alike.
        quantised: by the id of a master, the FP8 copies that compute alone in its place: its working weight has no
            numbers. Whoever steps the masters rounds them, too.
    """

    def __init__(self, masters: Decoder, prepare: Callable[[Decoder], None]) -> None:
        with torch.device("meta"):
            self.decoder = Decoder(masters.config)
        round_parameters(self.decoder)
        self.decoder.recompute = masters.recompute
        for block, master_block in zip(self.decoder.blocks(), masters.blocks(), strict=True):
            if master_block._compiled_call_impl is not None:
                block.compile()
        prepare(self.decoder)
        self.decoder.to_empty(device=next(masters.parameters()).device)
        self.decoder.tie_weights()
        _share_buffers(masters, self.decoder)
        self.pairs = tuple(zip(masters.parameters(), self.decoder.parameters(), strict=True))
        names = {module: name for name, module in self.decoder.named_modules()}
        self._keepers = [(keeper, masters.get_submodule(names[keeper])) for keeper in keep_copies(self.decoder)]
        self.quantised = {
            id(master): copy
            for keeper, source in self._keepers
            for master, copy in zip(keeper.parameters_of(source), keeper.quantised_parameters(), strict=True)
        }
        self.refresh()

    @torch.no_grad()
    def refresh(self) -> None:
        """Round the masters anew, after something other than a step has changed them."""
        for master, working in self.pairs:
            if id(master) not in self.quantised:
                local(working).copy_(local(master))
        for keeper, source in self._keepers:
            keeper.renew_copies(source)

    @torch.no_grad()
    def hand_over_gradients(self, accumulates: bool) -> None:
        """Give the masters the gradients of a backward pass: as they are, or summed up in FP32 over several."""
        for master, working in self.pairs:
            if working.grad is None:
                continue
            gradient, working.grad = working.grad, None
            if not accumulates:
                master.grad_dtype = gradient.dtype
                master.grad = _like(master, gradient)
            elif master.grad is None:
                # A copy always: the next run of a recording overwrites what it has left.
                master.grad = _like(master, gradient.to(torch.float32, copy=True))
            else:
                local(master.grad).add_(local(gradient))


def round_parameters(decoder: Decoder) -> None:
    """Let every parameter but those of routers be BF16, in place; buffers stay."""
    for module in decoder.modules():
        if not isinstance(module, Router):
            for name, parameter in list(module.named_parameters(recurse=False)):
                setattr(module, name, nn.Parameter(parameter.to(torch.bfloat16)))
    decoder.tie_weights()


def _like(master: Tensor, gradient: Tensor) -> Tensor:
    """The gradient as a DTensor where its master is one, though of a single rank, and its working weight is whole."""
    if not isinstance(master, DTensor):
        return local(gradient)
    if isinstance(gradient, DTensor):
        return gradient
    return DTensor.from_local(
        gradient, master.device_mesh, master.placements, shape=master.shape, stride=master.stride()
    )


def _share_buffers(masters: Decoder, decoder: Decoder) -> None:
    for name, buffer in masters.named_buffers():
        module, _, leaf = name.rpartition(".")
        decoder.get_submodule(module).register_buffer(leaf, buffer)
