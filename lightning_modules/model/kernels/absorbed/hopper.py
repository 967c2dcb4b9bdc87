"""Launches of the kernels for Hopper: its tensor cores and copy engine, a rank of 512 and 64 rotary numbers."""

from typing import Any

import torch
import triton
from torch import Tensor
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.nvidia.hopper import TensorDescriptor

from lightning_modules.model.kernels.absorbed import hopper_bf16, hopper_fp8
from lightning_modules.model.kernels.absorbed.operands import LOWEST, TILE, Operands, Pieces

RANK, ROPE = 512, 64
# Numbers of a latent that are loaded and multiplied at once.
PART = 128
# New tokens times heads that a program over BF16 attends for, at most: registers hold no more of their contexts.
MOST_COLUMNS = 32
# Tiles for each multiprocessor from which on two programs share it.
ENOUGH_TILES = 16
# Tiles over FP8 that a multiprocessor's shared memory has room for.
STAGES = 4
# Registers of a thread when a program over FP8 begins; its warps then share them out.
REGISTERS = 128


def fits(operands: Operands) -> bool:
    """Whether `attend` knows their shape and type, and the device."""
    latent, rope_key = operands.latent, operands.rope_key
    is_hopper = latent.is_cuda and torch.cuda.get_device_capability(latent.device) == (9, 0)
    is_bf16 = operands.query_latent.dtype == rope_key.dtype == torch.bfloat16
    return is_hopper and is_bf16 and (latent.shape[-1], rope_key.shape[-1]) == (RANK, ROPE)


def most_columns(operands: Operands) -> int:
    """New tokens times heads that a program attends for, at most."""
    return MOST_COLUMNS if operands.latent_scale is None else hopper_fp8.N_COLUMNS


def programs_of_multiprocessor(operands: Operands) -> int:
    """How many programs share a multiprocessor: over FP8 two, where they find work enough (see `hopper_fp8`)."""
    n_rows, capacity, _ = operands.latent.shape
    n_multiprocessors = torch.cuda.get_device_properties(operands.latent.device).multi_processor_count
    has_enough = n_rows * capacity >= ENOUGH_TILES * TILE * n_multiprocessors
    return 2 if operands.latent_scale is not None and has_enough else 1


def attend(operands: Operands, pieces: Pieces, columns: int) -> None:
    """Fill `pieces`; a program attends for `columns` of the new tokens' heads."""
    query_latent, query_rope, latent, rope_key, latent_scale, lengths, scale = operands
    n_rows, n_new, n_heads, _ = query_latent.shape
    grid = (pieces.n_programs, triton.cdiv(n_new * n_heads, columns))
    common = (
        query_latent,
        query_rope,
        _descriptor(latent, PART),
        _descriptor(rope_key, ROPE),
        latent.stride(0) // latent.stride(1),
        rope_key.stride(0) // rope_key.stride(1),
        lengths,
        pieces.contexts,
        pieces.weights,
        scale,
        n_rows,
    )
    shape: dict[str, Any] = {"NEW": n_new, "HEADS": n_heads, "ROWS": triton.next_power_of_2(n_rows), "LOWEST": LOWEST}
    if latent_scale is not None:
        scales = _descriptor(latent_scale, RANK // PART), latent_scale.stride(0) // latent_scale.stride(1)
        # Where the compiler sees from 2 to 16 rows, it finds too few registers, and keeps much in memory.
        shape["ROWS"] = shape["ROWS"] if n_rows == 1 else max(shape["ROWS"], 32)
        stages = STAGES // programs_of_multiprocessor(operands)
        hopper_fp8.attend[grid](*common, *scales, **shape, STAGES=stages, num_warps=4, maxnreg=REGISTERS)
    else:
        hopper_bf16.attend[grid](*common, **shape, COLUMNS=columns, num_warps=4)


def _descriptor(cached: Tensor, width: int) -> TensorDescriptor:
    """Of a cache [B, S, N], its rows one after the other, for loads of a tile of tokens by `width` numbers."""
    (n_rows, n_tokens, n_numbers), (row, token, _) = cached.shape, cached.stride()
    swizzled = min(width * cached.itemsize, 128) if cached.dtype != torch.float32 else 0
    layout = gl.NVMMASharedLayout(swizzled, 8 * cached.itemsize, 2)
    shape = [(n_rows - 1) * (row // token) + n_tokens, n_numbers]
    return TensorDescriptor(cached, shape, [token, 1], [TILE, width], layout)
