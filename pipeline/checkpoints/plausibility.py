"""Whether a described architecture can be the file's at all, before anything of its size is built."""

from pathlib import Path

from lightning_modules.model.configuration import DecoderConfig
from pipeline.checkpoints.names import own_tensors
from pipeline.checkpoints.stored_tensor import DamagedCheckpointError


def check_layers(config: DecoderConfig, n_tensors: int, path: Path) -> None:
    """Raise when more layers are described than there are tensors, or matrices that cannot be.

    Raises:
        DamagedCheckpointError: naming what is described.
    """
    n_layers = config.num_hidden_layers + config.num_nextn_predict_layers
    if n_layers > n_tensors:
        raise DamagedCheckpointError(
            f"{path} holds {n_tensors} tensors, but its configuration describes {n_layers} layers; one of them is not "
            "whole: fetch or write the checkpoint again."
        )
    try:
        own_tensors(config)
    except (RuntimeError, TypeError, OverflowError) as error:
        raise DamagedCheckpointError(f"{path} describes a decoder that cannot be built ({error}).") from error


def check_experts(config: DecoderConfig, n_tensors: int, path: Path) -> None:
    """Raise when more experts are described than there are tensors, each expert having its own.

    Raises:
        DamagedCheckpointError: naming both.
    """
    n_moe_layers = max(0, config.num_hidden_layers - config.first_k_dense_replace) + config.num_nextn_predict_layers
    if n_moe_layers and config.n_routed_segments > n_tensors:
        raise DamagedCheckpointError(
            f"{path} holds {n_tensors} tensors, but its configuration describes {config.n_routed_segments} experts a "
            "layer; one of them is not whole: fetch or write the checkpoint again."
        )
