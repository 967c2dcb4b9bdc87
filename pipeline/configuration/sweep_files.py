"""What Hydra writes of a sweep by itself, without secrets."""

from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from pipeline.plumbing.files import atomic_write
from pipeline.plumbing.redaction import redacted


class RedactSweep(Callback):
    """Takes the secrets out of `multirun.yaml`, which Hydra writes before the first job, with every override."""

    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Rewrite the file of the sweep that this job belongs to, if it holds a secret."""
        folder = OmegaConf.select(config, "hydra.sweep.dir")
        path = Path(folder or ".", "multirun.yaml")
        if not path.is_file():
            return
        text = path.read_text(encoding="utf-8")
        if redacted(text) != text:
            with atomic_write(path) as temporary:
                temporary.write_text(redacted(text), encoding="utf-8")
