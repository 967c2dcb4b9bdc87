"""A predictor of opinion scores: how clean speech sounds, by listeners of noisy calls."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import speechmos
from speechmos.dnsmos import DNSMOS, INPUT_LENGTH

from pipeline.judges.judge import SAMPLE_RATE, Judgement, Measure, Specimen
from pipeline.judges.registry import Options

MODELS = Path(speechmos.__file__).parent / "dnsmos_models"
SPAN = int(INPUT_LENGTH * SAMPLE_RATE)


class Dnsmos:
    """Microsoft's DNSMOS P.835 and P.808 (Reddy et al., arXiv 2110.01763), its two sessions kept open."""

    compares = False
    origin = "DNSMOS (Microsoft), by speechmos 0.0.1.1"
    measures: Mapping[str, Measure] = {
        "overall": Measure("DNSMOS", "higher", "predicted opinion of the whole, 1 to 5 (P.835)"),
        "signal": Measure("Signal", "higher", "predicted opinion of the speech itself, 1 to 5 (P.835)"),
        "p808": Measure("P.808", "higher", "predicted opinion by another model, 1 to 5"),
    }

    def __init__(self, options: Options) -> None:
        self._model = DNSMOS(str(MODELS / "sig_bak_ovr.onnx"), str(MODELS / "model_v8.onnx"))

    def judge(self, specimen: Specimen) -> Judgement:
        """Judge a sound; one shorter than the nine seconds that the models take is repeated up to them."""
        audio = np.clip(specimen.audio, -1, 1)
        if not len(audio):
            return Judgement()
        if len(audio) < SPAN:
            audio = np.resize(audio, SPAN)
        found = self._model(audio, SAMPLE_RATE, is_personalized_MOS=False)
        names = {"overall": "ovrl_mos", "signal": "sig_mos", "p808": "p808_mos"}
        return Judgement({name: float(found[its_name]) for name, its_name in names.items()})
