"""A predictor of opinion scores: how good speech sounds, by listeners of codecs and synthesisers."""

import io
from collections.abc import Mapping
from contextlib import redirect_stdout

import torch
from distillmos import ConvTransformerSQAModel

from pipeline.judges.judge import Judgement, Measure, Specimen
from pipeline.judges.registry import Options

# Shorter sounds are padded by the model; without a single window of its spectrum there is nothing to pad.
SHORTEST = 320


class DistillMos:
    """Microsoft's DistillMOS (Stahl and Gamper, 2025), distilled from a predictor over XLS-R."""

    compares = False
    origin = "DistillMOS 0.9.1 (Microsoft)"
    measures: Mapping[str, Measure] = {
        "mos": Measure("DistillMOS", "higher", "predicted mean opinion score, 1 to 5"),
    }

    def __init__(self, options: Options) -> None:
        # It prints where it has its weights from.
        with redirect_stdout(io.StringIO()):
            self._model = ConvTransformerSQAModel().eval().to(options.device)
        self._device = options.device

    @torch.inference_mode()
    def judge(self, specimen: Specimen) -> Judgement:
        """Judge a sound."""
        if len(specimen.audio) < SHORTEST:
            return Judgement()
        return Judgement({"mos": float(self._model(torch.from_numpy(specimen.audio)[None].to(self._device)))})
