"""Values that a setting cannot have, those that may pass all the same, and what is said of the others."""

import copy
import math
from collections.abc import Iterator, Mapping
from typing import Any

from pipeline.configuration.composed import CONF
from pipeline.configuration.experiment import check_experiment

# The kinds whose settings are not in the default experiment.
OWN_FILES = ("plan", "stream", "serve")
OTHERS = [
    *OWN_FILES,
    "data=folder data.root=/audio",
    "codec=mu_law",
    "codec=mimi",
    "strategy=expert_parallel",
    "model=deepseek_v3",
]
WRONG: dict[str, Any] = {
    "text": "zebra",
    "list": [["zebra"]],
    "mapping": {"zebra": 1},
    "negative": -3,
    "zero": 0,
    "huge": 10**15,
    "astronomic": 10**40,
    "nan": math.nan,
    "infinite": math.inf,
    "null": None,
    "empty": "",
    "true": True,
}
# Nothing is computed or kept that grows with these: a step that never comes, a limit that is never reached.
FREE = {
    "trainer.val_every_steps", "trainer.log_every_steps", "trainer.checkpoint_every_steps",
    "trainer.gradient_clip_val", "trainer.anomalies.spike_deviations", "trainer.anomalies.max_consecutive_skips",
    "evaluate.top_k", "evaluate.temperature", "top_k", "temperature", "evaluate.flatness_gate.max_ratio",
    "conversion.flatness_gate.max_ratio", "optimizer.lr", "optimizer.weight_decay", "optimizer.eps",
    "model.routed_scaling_factor", "model.rope_theta", "model.rms_norm_eps", "model.initializer_range",
    "model.rope_scaling.factor", "model.rope_scaling.beta_fast", "model.rope_scaling.mscale",
    "model.rope_scaling.mscale_all_dim", "model.rope_scaling.original_max_position_embeddings",
}  # fmt: skip
FREE_GROUPS = ("model.objective.",)


def leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


def changed(values: Mapping[str, Any], key: str, value: Any) -> dict[str, Any]:
    result = copy.deepcopy(dict(values))
    *groups, leaf = key.split(".")
    place = result
    for group in groups:
        place = place[group]
    place[leaf] = value
    return result


def composed(overrides: str = "") -> dict[str, Any]:
    import hydra
    from omegaconf import OmegaConf

    with hydra.initialize_config_dir(str(CONF), version_base=None):
        chosen = [] if overrides in OWN_FILES else overrides.split()
        values = OmegaConf.to_container(hydra.compose(file_of(overrides), chosen), resolve=True)
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}


def file_of(overrides: str) -> str:
    """The file of conf/ that is composed: a command's own, or the experiments'."""
    return overrides if overrides in OWN_FILES else "config"


def refusal(values: dict[str, Any], name_of_file: str) -> str | None:
    try:
        check_experiment(values, name_of_file)
    except ValueError as error:
        return str(error)
    except Exception as error:  # noqa: BLE001 - the very thing that must not be
        return f"{type(error).__name__} {error}\n"
    return None


def fault(values: dict[str, Any], key: str, name: str, name_of_file: str) -> str | None:
    """What is wrong with how a leaf of a wrong value is met; None: it is refused by its name, or harmless."""
    message = refusal(changed(values, key, WRONG[name]), name_of_file)
    if message is None:
        return None if may_pass(key, name) else "it is accepted"
    return None if is_named(key, message) else message


def is_named(key: str, message: str) -> bool:
    return key.split(".")[0] in message and key.split(".")[-1] in message and "\n" not in message


def may_pass(key: str, name: str) -> bool:
    if name == "huge":
        return key in FREE or key.startswith(FREE_GROUPS)
    if (key, name) == ("feed.mixture", "mapping"):  # a folder and its share
        return True
    return name not in ("list", "mapping", "astronomic", "nan", "infinite")
