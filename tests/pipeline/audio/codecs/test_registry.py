from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from pipeline.audio.codecs.configuration import MelRvqConfig, MuLawConfig, PretrainedConfig, codec_settings
from pipeline.audio.codecs.mu_law import MuLawCodec
from pipeline.audio.codecs.registry import codec_class

CONF = Path(__file__).parents[4] / "conf" / "codec"
CHOICES = sorted(path.stem for path in CONF.glob("*.yaml") if not path.stem.startswith("_"))
CLASSES = {"mel_rvq": MelRvqConfig, "mu_law": MuLawConfig, "pretrained": PretrainedConfig}


@pytest.mark.parametrize("choice", CHOICES)
def test_every_choice_of_the_codec_group_is_valid(choice):
    with initialize_config_dir(str(CONF), version_base=None):
        options = OmegaConf.to_container(compose(choice))
    config = codec_settings(options)
    assert type(config) is CLASSES[options["kind"]]
    if options["kind"] != "pretrained":
        assert codec_class(options["kind"]).sample_rate_of(config) == options["sample_rate"]


def test_unknown_setting_is_named_with_what_was_meant(mel_rvq_options):
    options = {**mel_rvq_options, "hop_lenght": 160}
    del options["hop_length"]
    with pytest.raises(ValueError, match=r"codec\.hop_lenght .* `hop_length`"):
        codec_settings(options)


@pytest.mark.parametrize("name", ["log_floor", "n_codebooks"])
def test_missing_setting_is_named(mel_rvq_options, name):
    with pytest.raises(ValueError, match=rf"codec\.{name} is not set"):
        codec_settings({key: value for key, value in mel_rvq_options.items() if key != name})


def test_unknown_kind_suggests_the_near_one():
    with pytest.raises(ValueError, match=r"codec\.kind=mel-rvq .* `mel_rvq`"):
        codec_settings({"kind": "mel-rvq"})


def test_missing_kind_lists_the_kinds():
    with pytest.raises(ValueError, match=r"codec\.kind is missing; .*`mu_law`.*`pretrained`"):
        codec_settings({"sample_rate": 8000})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("sample_rate", 0),
        ("sample_rate", 8000.0),
        ("n_fft", 511),
        ("hop_length", 300),
        ("n_mels", 400),
        ("f_min", 4000.0),
        ("f_max", 5000.0),
        ("log_floor", 0.0),
        ("loudness_db", 3.0),
        ("loudness_db", float("nan")),
        ("n_codebooks", True),
        ("codebook_size", 1),
        ("fit_frames", 10),
        ("kmeans_iterations", 0),
        ("griffin_lim_iterations", 0),
        ("griffin_lim_momentum", 1.0),
        ("stream_chunk_frames", 0),
        ("stream_lookahead_frames", -1),
        ("stream_context_frames", None),
    ],
)
def test_invalid_mel_rvq_value_is_named(mel_rvq_options, name, value):
    with pytest.raises(ValueError, match=rf"codec\.{name}"):
        codec_settings({**mel_rvq_options, name: value})


@pytest.mark.parametrize(
    ("name", "value"), [("sample_rate", -1), ("quantization_channels", 1), ("loudness_db", "loud")]
)
def test_invalid_mu_law_value_is_named(name, value):
    options = {"kind": "mu_law", "sample_rate": 8000, "quantization_channels": 256, "loudness_db": -23.0}
    with pytest.raises(ValueError, match=rf"codec\.{name}"):
        codec_settings({**options, name: value})


@pytest.mark.parametrize(("name", "value"), [("model", ""), ("model", 3), ("n_codebooks", 0)])
def test_invalid_pretrained_value_is_named(name, value):
    options = {"kind": "pretrained", "model": "kyutai/mimi", "n_codebooks": 8, "loudness_db": -23.0}
    with pytest.raises(ValueError, match=rf"codec\.{name}"):
        codec_settings({**options, name: value})


def test_a_codec_that_learns_nothing_leaves_the_waveforms_unread():
    def unreadable():
        raise AssertionError("the waveforms were read")
        yield

    assert isinstance(MuLawCodec.fit(MuLawConfig(8000, 256, -23.0), unreadable, seed=0), MuLawCodec)
