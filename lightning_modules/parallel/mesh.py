"""How the ranks of a training are arranged."""

from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

DISPATCH_KINDS = ("auto", "all_to_all", "deep_ep")
# What moves tensors of a device between ranks; "fake" moves nothing, for a planner that stands for one rank of many.
BACKENDS = {"cuda": ("nccl", "fake"), "cpu": ("gloo", "fake")}


@dataclass(frozen=True)
class ParallelConfig:
    """Sizes of the mesh, and how tokens travel to their experts.

    Attributes:
        dp_replicate: copies of the whole sharded model, which exchange gradients alone (HSDP); 1: none.
        dp_shard: ranks that share one set of experts' weights; null: all that `dp_replicate` and `ep` leave.
        ep: ranks that the experts of a layer are spread over.
        nodes: machines.
        gpus_per_node: processes on each; null: what torchrun or SLURM started or, started alone, every GPU, and one
            process without GPUs.
        dispatch: `auto` takes DeepEP where it runs, else all-to-all; the others are taken as named.
    """

    dp_replicate: int = 1
    dp_shard: int | None = None
    ep: int = 1
    nodes: int = 1
    gpus_per_node: int | None = None
    dispatch: str = "auto"

    def __post_init__(self) -> None:
        for name in ("dp_replicate", "dp_shard", "ep", "nodes", "gpus_per_node"):
            size = getattr(self, name)
            if size is not None and size < 1:
                raise ValueError(f"strategy.{name} is {size}; it must be at least 1.")
        if self.dispatch not in DISPATCH_KINDS:
            raise ValueError(f"strategy.dispatch is '{self.dispatch}'; choose {', '.join(DISPATCH_KINDS)}.")


def mesh_sizes(config: ParallelConfig, world_size: int) -> tuple[int, int, int]:
    """The mesh's (dp_replicate, dp_shard, ep), which multiply to `world_size`.

    Raises:
        ValueError: when they cannot; the message says which numbers do not divide.
    """
    fixed = config.dp_replicate * config.ep
    if config.dp_shard is None:
        if world_size % fixed:
            raise ValueError(
                f"strategy.dp_replicate ({config.dp_replicate}) × strategy.ep ({config.ep}) = {fixed} does not divide "
                f"the {world_size} ranks; change one of them, or start a multiple of {fixed} ranks."
            )
        return config.dp_replicate, world_size // fixed, config.ep
    if fixed * config.dp_shard != world_size:
        raise ValueError(
            f"strategy.dp_replicate ({config.dp_replicate}) × strategy.dp_shard ({config.dp_shard}) × strategy.ep "
            f"({config.ep}) = {fixed * config.dp_shard}, but there are {world_size} ranks; "
            "make them multiply to that, or set strategy.dp_shard to null."
        )
    return config.dp_replicate, config.dp_shard, config.ep


def build_mesh(config: ParallelConfig, device_type: str, world_size: int) -> DeviceMesh:
    """Arrange all ranks as (dp_replicate, dp_shard, ep), neighbours in `ep` first.

    Every dimension is there even when it has size 1, and so is `dp_shard_ep`, the last two flattened into one.

    Raises:
        ValueError: when the sizes do not multiply to the world's, or its backend cannot serve the device.
    """
    sizes = mesh_sizes(config, world_size)
    _check_world(device_type, world_size)
    mesh = init_device_mesh(device_type, sizes, mesh_dim_names=("dp_replicate", "dp_shard", "ep"))
    mesh["dp_shard", "ep"]._flatten("dp_shard_ep")
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
