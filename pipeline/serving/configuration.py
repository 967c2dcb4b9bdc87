"""What `serve` adds to the configuration. Light: needs no torch."""

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar

from lightning_modules.model.sampling_configuration import SamplingConfig
from pipeline.configuration.settings import read_settings
from pipeline.plumbing.device import check_device
from pipeline.streaming.configuration import SAMPLING, check_path, with_sampling


@dataclass(frozen=True)
class Limits:
    """How much clients may ask for.

    Attributes:
        rows: utterances spoken at once.
        waiting: requests that may wait for a row.
        max_seconds: of speech that one request may ask for.
        max_prompt_seconds: of a prompt.
        max_upload_mib: of a request's body.
    """

    LARGEST: ClassVar[Mapping[str, float]] = {
        "rows": 1024, "waiting": 1024, "max_seconds": 36_000, "max_prompt_seconds": 3600, "max_upload_mib": 1024
    }  # fmt: skip

    rows: int
    waiting: int
    max_seconds: float
    max_prompt_seconds: float
    max_upload_mib: float

    def __post_init__(self) -> None:
        if self.rows < 1:
            raise ValueError(f"rows is {self.rows}; it must be at least 1.")
        if self.waiting < 0:
            raise ValueError(f"waiting is {self.waiting}; it must not be negative.")
        for name in ("max_seconds", "max_prompt_seconds", "max_upload_mib"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be positive.")

    @property
    def max_upload_bytes(self) -> int:
        """Bytes of a request's body."""
        return round(self.max_upload_mib * 2**20)


@dataclass(frozen=True)
class ServeConfig:
    """Who speaks, and where clients find it.

    Attributes:
        export: the folder of an export.
        host: the address to listen on.
        port: to listen on; 0: any free one.
        device: one of `pipeline.plumbing.device.DEVICES`.
        grace_seconds: what a server that is asked to end takes to finish what is being spoken.
        limits: how much clients may ask for.
        sampling: how tokens are drawn.
    """

    LARGEST: ClassVar[Mapping[str, float]] = {"port": 65_535, "grace_seconds": 3600}

    export: str
    host: str
    port: int
    device: str
    grace_seconds: float
    limits: Limits
    sampling: SamplingConfig

    def __post_init__(self) -> None:
        check_path("export", self.export, "the folder of an export")
        if not self.host.strip() or not self.host.isprintable() or " " in self.host:
            raise ValueError(f"host is {self.host[:60]!r}; it takes an address, such as 127.0.0.1.")
        if self.port < 0:
            raise ValueError(f"port is {self.port}; choose one from 1 to 65535, or 0 for any free one.")
        if self.grace_seconds < 0:
            raise ValueError(f"grace_seconds is {self.grace_seconds}; it must not be negative.")
        check_device("device", self.device)

    @property
    def is_local(self) -> bool:
        """Whether nobody but this machine can connect."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"


LIMITS = tuple(field.name for field in fields(Limits))
SERVE_KEYS = (
    *(field.name for field in fields(ServeConfig) if field.name not in ("limits", "sampling")),
    *LIMITS,
    *SAMPLING,
)


def read_serve(values: Mapping[str, Any]) -> ServeConfig:
    """The settings of `serve` in a composed configuration.

    Raises:
        ValueError: naming the key that cannot be, and the remedy.
    """
    limits = read_settings(Limits, {key: values[key] for key in LIMITS if key in values}, "")
    settings = with_sampling(values, [key for key in SERVE_KEYS if key not in LIMITS])
    return read_settings(ServeConfig, {**settings, "limits": limits}, "")
