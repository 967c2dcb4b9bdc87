"""How the ranks of a training are arranged."""

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from lightning_modules.parallel.configuration import ParallelConfig, mesh_sizes

# What moves tensors of a device between ranks; "fake" moves nothing, for a planner that stands for one rank of many.
BACKENDS = {"cuda": ("nccl", "fake"), "cpu": ("gloo", "fake")}


def build_mesh(config: ParallelConfig, device_type: str, world_size: int) -> DeviceMesh:
    """Arrange all ranks as (dp_replicate, dp_shard, cp, ep), neighbours in `ep` first.

    Every dimension is there even when it has size 1. So are those that weights are sharded over, several flattened into
    one: `dp_shard_cp` for experts, and `dp_shard_cp_ep` for all else.

    Raises:
        ValueError: when the sizes do not multiply to the world's, or its backend cannot serve the device.
    """
    sizes = mesh_sizes(config, world_size)
    _check_world(device_type, world_size)
    mesh = init_device_mesh(device_type, sizes, mesh_dim_names=sizes._fields)
    mesh["dp_shard", "cp"]._flatten("dp_shard_cp")
    mesh["dp_shard", "cp", "ep"]._flatten("dp_shard_cp_ep")
    return mesh


def _check_world(device_type: str, world_size: int) -> None:
    if not dist.is_initialized():
        raise ValueError("There is no process group; the mesh is built after torch.distributed has been initialised.")
    if dist.get_world_size() != world_size:
        raise ValueError(f"The process group has {dist.get_world_size()} ranks, but {world_size} were expected.")
    if device_type not in BACKENDS:
        raise ValueError(f"Ranks on '{device_type}' are not supported; choose {' or '.join(BACKENDS)}.")
    if device_type == "cuda" and not torch.cuda.is_available():
        raise ValueError("The mesh is to lie on GPUs, but torch sees none; use trainer.accelerator=cpu.")
    # A group may hold several backends: "cpu:gloo,cuda:nccl".
    backends = dict(entry.split(":") for entry in dist.get_backend_config().split(","))
    backend = backends.get(device_type)
    if backend not in BACKENDS[device_type]:
        raise ValueError(
            f"The process group serves {device_type} through {backend or 'no backend'}; "
            f"initialise it with {BACKENDS[device_type][0]}."
        )
