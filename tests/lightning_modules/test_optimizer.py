"""The optimizer of a configuration, and which parameters it steps how."""

from typing import Any

import pytest
import torch

from lightning_modules.adamw import EagerAdamW
from lightning_modules.configuration import OptimizerConfig
from lightning_modules.model.configuration import DecoderConfig
from lightning_modules.model.decoder import Decoder
from lightning_modules.muon import Muon
from lightning_modules.optimizer import build_optimizer

SETTINGS: dict[str, Any] = {"lr": 1e-3, "betas": (0.9, 0.95), "weight_decay": 0.1, "eps": 1e-8}


@pytest.mark.parametrize(
    ("changes", "kind"),
    [({}, torch.optim.AdamW), ({"moments": "bf16"}, EagerAdamW), ({"kind": "muon"}, Muon)],
)
def test_the_configuration_names_the_optimizer(
    tiny_config: DecoderConfig, changes: dict[str, str], kind: type[torch.optim.Optimizer]
) -> None:
    decoder = Decoder(tiny_config)
    optimizer = build_optimizer(decoder, OptimizerConfig(**SETTINGS | changes))
    assert type(optimizer) is kind
    stepped = [id(parameter) for group in optimizer.param_groups for parameter in group["params"]]
    assert sorted(stepped) == sorted(id(parameter) for parameter in decoder.parameters())


def test_muon_steps_hidden_matrices_and_no_others(tiny_config: DecoderConfig) -> None:
    decoder = Decoder(tiny_config)
    optimizer = build_optimizer(decoder, OptimizerConfig(**SETTINGS, kind="muon"))
    n_stacked = {id(p): group["n_stacked"] for group in optimizer.param_groups for p in group["params"]}
    stacked = {name: n_stacked[id(parameter)] for name, parameter in decoder.named_parameters()}
    by_row = ("embed_tokens.weight", "lm_head.weight", "mlp.gate.weight")
    for name, parameter in decoder.named_parameters():
        expected = 0 if parameter.ndim == 1 or name.endswith(by_row) else 1 + name.endswith("experts.gate_up_proj")
        assert stacked[name] == expected, name
    assert {0, 1, 2} == set(stacked.values())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "sgd"}, r"optimizer\.kind is 'sgd'; choose one of adamw, muon"),
        ({"momentum": 1.0}, r"optimizer\.momentum is 1\.0; it must lie from 0"),
        ({"moments": "fp64"}, r"optimizer\.moments is 'fp64'; choose one of fp32, bf16"),
        (
            {"moments": "bf16", "betas": (0.9, 0.999)},
            r"optimizer\.moments is 'bf16' with optimizer\.betas \(0\.9, 0\.999\)",
        ),
    ],
)
def test_what_cannot_step_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        OptimizerConfig(**SETTINGS | changes)
