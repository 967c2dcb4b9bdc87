"""DeepEP (https://github.com/deepseek-ai/DeepEP) for token dispatch, where the machine and the installed version allow.

The module is optional, and built for one machine at a time: whatever goes wrong on the way to it is a reason to take
another dispatcher, not a reason to stop.
"""

import importlib
import importlib.metadata
import inspect
import re
from types import ModuleType

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh

from lightning_modules.model.dispatch import Dispatcher
from lightning_modules.parallel.deep_ep_dispatcher import DeepEPDispatcher, Quantiser
from lightning_modules.parallel.deep_ep_transports import ElasticTransport, LegacyTransport, Transport
from lightning_modules.parallel.seats import own_seat, told_by_all, unreachable

# The releases whose signatures are known, and what the newer API needs beyond the older one.
LEGACY_VERSIONS = {(1, 0), (1, 1), (1, 2)}
ELASTIC_VERSIONS = {(2, 0), (2, 1)}
MINIMUM_CAPABILITY = (9, 0)
MINIMUM_CUDA = (12, 3)
ELASTIC_MINIMUM_TORCH = (2, 10)
ELASTIC_MINIMUM_NCCL = (2, 30, 4)
# By which a `Buffer` that tells no version is known.
LEGACY_ARGUMENTS = {
    "x", "handle", "topk_idx", "topk_weights", "num_tokens_per_rank", "num_tokens_per_rdma_rank", "is_token_in_rank",
    "num_tokens_per_expert", "expert_alignment", "config",
}  # fmt: skip


class DeepEPUnavailable(RuntimeError):  # noqa: N818
    """DeepEP cannot be used here; the message says why, in words that finish "DeepEP is not used: …"."""


def deep_ep_dispatcher(n_experts: int, ep_mesh: DeviceMesh, quantise: Quantiser | None = None) -> Dispatcher:
    """A dispatcher that spreads experts over `ep_mesh` and moves BF16 tokens by DeepEP.

    It owns a communication buffer: make one for all layers of a model. All ranks call together, and either all of them
    get one or none does.

    Args:
        n_experts: of all ranks together.
        ep_mesh: one-dimensional; the ranks that hold experts.
        quantise: rounds tokens to FP8 on their way to the experts (see `DeepEPDispatcher`); None: BF16.

    Raises:
        DeepEPUnavailable: on any rank, the GPU, CUDA, torch or NCCL is too old, the module cannot be imported, its API
            is not known here, it does not serve this number of ranks, or GPUs of one machine do not reach each other.
    """
    group = ep_mesh.get_group()
    transport: Transport | None = None
    reason = None
    try:
        if n_experts % ep_mesh.size():
            raise DeepEPUnavailable(f"{n_experts} experts do not divide over {ep_mesh.size()} ranks")
        _check_device()
        transport = _transport(_import(), group, n_experts)
    except DeepEPUnavailable as error:
        reason = str(error)
    seats = told_by_all(own_seat(reason is None), group)
    reasons = told_by_all(reason or unreachable(seats, seats[group.rank()]), group)
    for rank, why in enumerate(reasons):
        if why is not None:
            raise DeepEPUnavailable(why if rank == group.rank() else f"rank {rank} cannot: {why}")
    assert transport is not None
    return DeepEPDispatcher(transport, n_experts // ep_mesh.size(), quantise)


def _transport(module: ModuleType, group: dist.ProcessGroup, n_experts: int) -> Transport:
    """The newest API that both the module and this machine have."""
    version = _version(module)
    lacking = None
    if version is not None and version[:2] in ELASTIC_VERSIONS and hasattr(module, "ElasticBuffer"):
        lacking = _lacking_for_elastic()
        if lacking is None:
            return ElasticTransport(module, group, n_experts)
    if not _has_legacy_api(module) or (version is not None and version[:2] not in LEGACY_VERSIONS | ELASTIC_VERSIONS):
        known = ", ".join(_dotted(v) for v in sorted(LEGACY_VERSIONS | ELASTIC_VERSIONS))
        named = "of unknown version" if version is None else _dotted(version) or "of unknown version"
        raise DeepEPUnavailable(lacking or f"the API of deep_ep {named} is not known here, only that of {known}")
    try:
        return LegacyTransport(module, group, n_experts)
    except AssertionError as error:
        raise DeepEPUnavailable(f"deep_ep does not serve {group.size()} ranks ({error})") from error


def _check_device() -> None:
    """Before the import, which may load libraries that a machine without a GPU lacks."""
    if not torch.cuda.is_available():
        raise DeepEPUnavailable("torch sees no CUDA device")
    capability = torch.cuda.get_device_capability()
    if capability < MINIMUM_CAPABILITY:
        raise DeepEPUnavailable(f"it needs SM{_joined(MINIMUM_CAPABILITY)}, and this GPU is SM{_joined(capability)}")
    cuda = _numbers(torch.version.cuda or "0")
    if cuda < MINIMUM_CUDA:
        raise DeepEPUnavailable(f"it needs CUDA {_dotted(MINIMUM_CUDA)}, and torch is built with {_dotted(cuda)}")


def _lacking_for_elastic() -> str | None:
    installed = _numbers(torch.__version__)
    if installed < ELASTIC_MINIMUM_TORCH:
        return f"it needs torch {_dotted(ELASTIC_MINIMUM_TORCH)}, and this is {_dotted(installed)}"
    nccl = tuple(torch.cuda.nccl.version())
    if nccl < ELASTIC_MINIMUM_NCCL:
        return f"it needs NCCL {_dotted(ELASTIC_MINIMUM_NCCL)}, and torch runs {_dotted(nccl)}"
    return None


def _import() -> ModuleType:
    try:
        return importlib.import_module("deep_ep")
    except ImportError as error:
        raise DeepEPUnavailable(f"deep_ep is not installed, or lacks a library ({error})") from error
    except Exception as error:
        # It checks its surroundings and compiles while it is imported, and says what it lacks by many exceptions.
        raise DeepEPUnavailable(f"deep_ep cannot be imported ({type(error).__name__}: {error})") from error


def _version(module: ModuleType) -> tuple[int, ...] | None:
    """The version in numbers: 1.x does not say its own, and the packages that brought it are asked. None: none says."""
    told = [getattr(module, "__version__", None)]
    told += [
        importlib.metadata.version(name) for name in importlib.metadata.packages_distributions().get("deep_ep", [])
    ]
    return next((_numbers(text) for text in told if text is not None), None)


def _has_legacy_api(module: ModuleType) -> bool:
    """Whether `deep_ep.Buffer` takes what `LegacyTransport` gives it."""
    dispatch = getattr(getattr(module, "Buffer", None), "dispatch", None)
    return dispatch is not None and set(inspect.signature(dispatch).parameters) >= LEGACY_ARGUMENTS


def _numbers(version: str) -> tuple[int, ...]:
    """The leading numbers of a version: (2, 11, 0) of '2.11.0+cu130'."""
    match = re.match(r"\d+(\.\d+)*", version)
    return tuple(int(part) for part in match[0].split(".")) if match else ()


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))


def _joined(version: tuple[int, ...]) -> str:
    return "".join(map(str, version))
