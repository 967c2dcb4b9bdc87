"""DeepEP (https://github.com/deepseek-ai/DeepEP) for token dispatch, where the machine and the installed version allow.

The module is optional, and built for one machine at a time: whatever goes wrong on the way to it is a reason to take
another dispatcher, not a reason to stop.
"""

import importlib
import importlib.metadata
import re
from types import ModuleType

import torch
from torch.distributed.device_mesh import DeviceMesh

from lightning_modules.model.dispatch import Dispatcher
from lightning_modules.parallel.deep_ep_dispatcher import DeepEPDispatcher, Quantiser
from lightning_modules.parallel.deep_ep_transports import ElasticTransport, LegacyTransport, Transport

# The releases whose signatures are known, and what the newer API needs beyond the older one.
LEGACY_VERSIONS = {(1, 0), (1, 1), (1, 2)}
ELASTIC_VERSIONS = {(2, 0), (2, 1)}
MINIMUM_CAPABILITY = (9, 0)
MINIMUM_CUDA = (12, 3)
ELASTIC_MINIMUM_TORCH = (2, 10)
ELASTIC_MINIMUM_NCCL = (2, 30, 4)


class DeepEPUnavailable(RuntimeError):  # noqa: N818
    """DeepEP cannot be used here; the message says why, in words that finish "DeepEP is not used: …"."""


def deep_ep_dispatcher(n_experts: int, ep_mesh: DeviceMesh, quantise: Quantiser | None = None) -> Dispatcher:
    """A dispatcher that spreads experts over `ep_mesh` and moves BF16 tokens by DeepEP.

    It owns a communication buffer: make one for all layers of a model.

    Args:
        n_experts: of all ranks together.
        ep_mesh: one-dimensional; the ranks that hold experts.
        quantise: rounds tokens to FP8 on their way to the experts (see `DeepEPDispatcher`); None: BF16.

    Raises:
        DeepEPUnavailable: the GPU, CUDA, torch or NCCL is too old, the module cannot be imported, its version is not
            one whose API is known here, or it does not serve this number of ranks.
    """
    _check_device()
    module = _import()
    version = _version(module)
    group = ep_mesh.get_group()
    n_ranks = ep_mesh.size()
    if n_experts % n_ranks:
        raise DeepEPUnavailable(f"{n_experts} experts do not divide over {n_ranks} ranks")
    transport: Transport
    if version[:2] in ELASTIC_VERSIONS:
        _check_elastic_requirements()
        transport = ElasticTransport(module, group, n_experts)
    else:
        try:
            transport = LegacyTransport(module, group, n_experts)
        except AssertionError as error:
            raise DeepEPUnavailable(f"deep_ep {_dotted(version)} does not serve {n_ranks} ranks ({error})") from error
    return DeepEPDispatcher(transport, n_experts // n_ranks, quantise)


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


def _check_elastic_requirements() -> None:
    installed = _numbers(torch.__version__)
    if installed < ELASTIC_MINIMUM_TORCH:
        raise DeepEPUnavailable(f"it needs torch {_dotted(ELASTIC_MINIMUM_TORCH)}, and this is {_dotted(installed)}")
    nccl = tuple(torch.cuda.nccl.version())
    if nccl < ELASTIC_MINIMUM_NCCL:
        raise DeepEPUnavailable(f"it needs NCCL {_dotted(ELASTIC_MINIMUM_NCCL)}, and torch runs {_dotted(nccl)}")


def _import() -> ModuleType:
    try:
        return importlib.import_module("deep_ep")
    except ImportError as error:
        raise DeepEPUnavailable(f"deep_ep is not installed, or lacks a library ({error})") from error
    except Exception as error:
        # It checks its surroundings and compiles while it is imported, and says what it lacks by many exceptions.
        raise DeepEPUnavailable(f"deep_ep cannot be imported ({type(error).__name__}: {error})") from error


def _version(module: ModuleType) -> tuple[int, ...]:
    """The version in numbers, if its API is known here: 1.x does not say its own, and is asked of its package."""
    text = getattr(module, "__version__", None)
    if text is None:
        try:
            text = importlib.metadata.version("deep_ep")
        except importlib.metadata.PackageNotFoundError as error:
            raise DeepEPUnavailable("deep_ep does not tell its version") from error
    version = _numbers(text)
    api = "ElasticBuffer" if version[:2] in ELASTIC_VERSIONS else "Buffer"
    if version[:2] not in ELASTIC_VERSIONS | LEGACY_VERSIONS or not hasattr(module, api):
        known = ", ".join(_dotted(v) for v in sorted(LEGACY_VERSIONS | ELASTIC_VERSIONS))
        raise DeepEPUnavailable(f"the API of deep_ep {text} is not known here, only that of {known}")
    return version


def _numbers(version: str) -> tuple[int, ...]:
    """The leading numbers of a version: (2, 11, 0) of '2.11.0+cu130'."""
    match = re.match(r"\d+(\.\d+)*", version)
    return tuple(int(part) for part in match[0].split(".")) if match else ()


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))


def _joined(version: tuple[int, ...]) -> str:
    return "".join(map(str, version))
