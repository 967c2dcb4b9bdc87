"""The loader that an export names to MLflow: audio or tokens in, the speech that continues them out."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from lightning_modules.model.sampling_configuration import SamplingConfig
from pipeline.mlflow_model.description import PARAMETERS
from pipeline.provenance.exports import export_digest
from pipeline.streaming.export import SpeakingExport, load_export
from pipeline.streaming.prompt import encode_prompt
from pipeline.streaming.speech import stream_audio, stream_codes, stream_tokens

COLUMNS = ("audio", "sample_rate", "tokens")


class SpeakingModel:
    """An export as MLflow asks it.

    Args:
        export: what speaks.
    """

    def __init__(self, export: SpeakingExport) -> None:
        self.export = export

    def predict(self, model_input: pd.DataFrame, params: Mapping[str, Any] | None = None) -> pd.DataFrame:
        """Continue every row.

        Args:
            model_input: a row an utterance, with the columns `audio` (mono samples, full scale ±1) and `sample_rate`,
                or `tokens` (as the vocabulary has them, without BOS; an empty list: speech from nothing).
            params: as in `PARAMETERS`; the rows speak with `seed`, `seed + 1`, ….

        Returns:
            Rows of `audio` (float32 samples), `sample_rate` (the codec's) and `tokens` (that were drawn).

        Raises:
            ValueError: naming the row or the parameter that cannot be, and the remedy.
        """
        asked = {**PARAMETERS, **(params or {})}
        sampling = SamplingConfig(asked["temperature"], asked["top_k"] or None, asked["top_p"])
        if asked["seconds"] <= 0:
            raise ValueError(f"seconds is {asked['seconds']}; it must be positive.")
        if not {"audio", "tokens"} & set(model_input.columns):
            raise ValueError("The input has neither a column `audio` nor `tokens`; tokens=[] is speech from nothing.")
        return pd.DataFrame(
            [
                self._continue(self._prompt(row, f"row {number}"), asked, sampling, asked["seed"] + number)
                for number, row in enumerate(model_input.to_dict("records"))
            ],
            columns=COLUMNS,
        )

    def _prompt(self, row: Mapping[str, Any], name: str) -> Tensor:
        """The codes [f, Q] of a row."""
        audio, tokens = row.get("audio"), row.get("tokens")
        if (audio is None) == (tokens is None):
            raise ValueError(f"{name}: give either `audio` or `tokens`.")
        if tokens is not None:
            try:
                return self.export.vocabulary.tokens_to_codes(np.array(tokens, dtype=np.int64))
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from None
        if not row.get("sample_rate"):
            raise ValueError(f"{name}: `audio` comes without its `sample_rate`, in Hz.")
        samples = np.asarray(audio, dtype=np.float32)
        return encode_prompt(samples, int(row["sample_rate"]), self.export.codec, name)

    def _continue(
        self, prompt: Tensor, asked: Mapping[str, Any], sampling: SamplingConfig, seed: int
    ) -> tuple[np.ndarray, int, np.ndarray]:
        export = self.export
        drawn = list(stream_tokens(export, prompt, export.n_frames(asked["seconds"]), sampling, seed))
        frames = stream_codes(export.vocabulary, drawn)
        with torch.inference_mode():
            chunks = list(stream_audio(export.codec, prompt, frames, asked["echo"]))
        audio = np.concatenate(chunks).astype(np.float32) if chunks else np.zeros(0, np.float32)
        return audio, export.codec.sample_rate, np.asarray(drawn, dtype=np.int64)


def _load_pyfunc(path: str, model_config: Mapping[str, Any] | None = None) -> SpeakingModel:
    """Load an export; MLflow finds this by its name.

    Args:
        path: the export's folder.
        model_config: `device`, as in `pipeline.plumbing.device`; `digest` of the export that has to lie there.

    Raises:
        FileNotFoundError, ValueError: when there is none, another one, or it is damaged.
    """
    wanted = model_config or {}
    export = Path(path)
    if (digest := wanted.get("digest")) is not None:
        _require(export, digest)
    return SpeakingModel(load_export(export, wanted.get("device", "auto")))


def _require(export: Path, digest: str) -> None:
    remedy = (
        "convert its training's checkpoint again, or `dvc exp apply` its experiment; with tracking.log_model=copy, or "
        "as champion, a model keeps its files"
    )
    if not export.is_dir():
        raise FileNotFoundError(f"{export}, which this model refers to, is gone; {remedy}.")
    if export_digest(export) != digest:
        raise ValueError(f"{export}, which this model refers to, holds another export by now; {remedy}.")
