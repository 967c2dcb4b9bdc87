import pytest

from lightning_modules.precision import emulation
from pipeline.architecture import precision_probes


def test_tiles_are_the_paper_s():
    assert precision_probes.forward_tiles() == "1 × 128"
    assert precision_probes.weight_tiles() == "128 × 128"
    assert precision_probes.gradient_tiles() == "1 × 128"
    assert precision_probes.weight_gradient_tiles() == "128 × 1"


@pytest.mark.parametrize("probe", ["forward_tiles", "weight_tiles", "gradient_tiles", "weight_gradient_tiles"])
def test_tiles_are_measured_and_not_known(monkeypatch, probe):
    monkeypatch.setattr(emulation, "BLOCK", 64)
    assert "64" in getattr(precision_probes, probe)()


def test_what_stays_in_high_precision(examine_subject):
    subject = examine_subject()
    assert precision_probes.high_precision_matrices(subject.copy) == "embed_tokens, gate, lm_head"
    assert type(subject.copy.layers[0].self_attn.o_proj).__name__ == "Linear"
