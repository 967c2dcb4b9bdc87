import builtins
import json

import pytest
import torch

from pipeline.audio.codecs.configuration import PretrainedConfig
from pipeline.audio.codecs.pretrained import PretrainedCodec
from pipeline.audio.codecs.storage import load_codec, save_codec

transformers = pytest.importorskip("transformers")


def encodec(**changes):
    return transformers.EncodecConfig(
        **{
            "sampling_rate": 8000,
            "target_bandwidths": [4.0, 8.0, 16.0],
            "hidden_size": 16,
            "num_filters": 4,
            "upsampling_ratios": [8, 4],
            "codebook_size": 16,
            "num_lstm_layers": 1,
            **changes,
        }
    )


def dac():
    return transformers.DacConfig(
        encoder_hidden_size=4,
        downsampling_ratios=[2, 4, 8],
        decoder_hidden_size=32,
        n_codebooks=16,
        codebook_size=16,
        codebook_dim=4,
        sampling_rate=8000,
    )


def mimi():
    return transformers.MimiConfig(
        sampling_rate=8000,
        hidden_size=32,
        num_filters=4,
        upsampling_ratios=[8, 4],
        codebook_size=16,
        codebook_dim=16,
        num_quantizers=16,
        vector_quantization_hidden_dimension=16,
        upsample_groups=32,
        num_hidden_layers=1,
        intermediate_size=32,
        num_attention_heads=2,
        num_key_value_heads=2,
        sliding_window=50,
    )


# model_type: (configuration, model class, frames a second)
MODELS = {
    "encodec": (encodec, "EncodecModel", 250.0),
    "dac": (dac, "DacModel", 125.0),
    "mimi": (mimi, "MimiModel", 125.0),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Tiny models with random weights, as save_pretrained writes them."""
    root = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    for name, (configuration, model_class, _) in MODELS.items():
        model = getattr(transformers, model_class)(configuration())
        for buffer, values in model.named_buffers():
            # Codebooks start at zero: give them entries of the size of what an untrained encoder puts out.
            if buffer.endswith(("embed", "embed_sum")):
                values.normal_(std=0.05)
            elif buffer.endswith("cluster_usage"):
                values.fill_(1.0)
        model.save_pretrained(root / name)
    return root


@pytest.fixture(params=sorted(MODELS))
def codec(request, folders):
    return PretrainedCodec.fit(PretrainedConfig(str(folders / request.param), 3, -23.0), [], seed=0)


def architecture_type(codec):
    return codec.model.config.model_type


def test_rates_come_from_the_model(codec):
    assert PretrainedCodec.sample_rate_of(codec.config) == codec.sample_rate == 8000
    assert codec.frame_rate == MODELS[architecture_type(codec)][2]
    assert (codec.n_codebooks, codec.codebook_size) == (3, 16)


def test_codes_and_audio_have_their_shapes(codec, speech):
    codes = codec.encode(speech(1.0, seed=0))
    assert codes.shape == (codec.frame_rate, 3)
    assert codes.dtype == torch.int64
    assert 0 <= int(codes.min()) <= int(codes.max()) < 16
    decoded = codec.decode(codes)
    assert decoded.shape == (8000,)
    assert decoded.dtype == torch.float32
    assert not torch.equal(decoded, codec.decode((codes + 1) % 16))


def test_codes_are_the_models_own(codec, folders, speech):
    """A direct call of the model, with all its codebooks, starts with the same codes."""
    model_type = architecture_type(codec)
    model = getattr(transformers, MODELS[model_type][1]).from_pretrained(folders / model_type).eval()
    audio = speech(1.0, seed=1)
    audio = audio * 10 ** (-23 / 20) / audio.square().mean().sqrt()
    with torch.no_grad():
        options = {"bandwidth": 16.0} if model_type == "encodec" else {}
        theirs = model.encode(audio[None, None], **options).audio_codes
    theirs = theirs.reshape(-1, theirs.shape[-1]).T
    assert theirs.shape[1] == 16
    agreement = (codec.encode(audio) == theirs[:, :3]).float().mean()
    assert agreement > 0.99  # the gain is computed in another order


@pytest.mark.parametrize("n_samples", [0, 1, 100])
def test_short_audio_is_padded_to_whole_frames(codec, n_samples):
    codes = codec.encode(torch.randn(n_samples))
    assert codes.shape == (-(-n_samples // codec.hop_length), 3)
    assert codec.decode(codes).shape == (len(codes) * codec.hop_length,)


def test_stream_matches_decoding_at_once(codec, speech):
    codes = codec.encode(speech(3.0, seed=2))
    stream = codec.stream()
    pushed = [stream.push(frames) for frames in codes.split(7)]
    online, offline = torch.cat([*pushed, stream.finish()]), codec.decode(codes)
    assert sum(len(samples) > 0 for samples in pushed) >= 4
    assert online.shape == offline.shape
    # Two seconds of context are more than these small models look back.
    torch.testing.assert_close(online, offline, rtol=0, atol=1e-4 * float(offline.abs().max()))


def test_saved_codec_needs_nothing_but_its_folder(codec, folders, speech, tmp_path):
    audio = speech(1.0, seed=3)
    codes = codec.encode(audio)
    save_codec(codec, tmp_path / "codec")
    path = tmp_path / "codec" / "codec.json"
    document = json.loads(path.read_text())
    document["config"]["model"] = "no/such-model"
    # As an earlier version wrote it, without checksums.
    document["format_version"] = 1
    path.write_text(json.dumps(document))
    again = load_codec(tmp_path / "codec")
    assert torch.equal(again.encode(audio), codes)
    assert torch.equal(again.decode(codes), codec.decode(codes))


def test_lost_weight_is_named(codec):
    fields, tensors = codec.state()
    name = next(name for name in tensors if name.startswith("encoder") and name.endswith("bias"))
    del tensors[name]
    with pytest.raises(ValueError, match=r"lacks weights: the tensor `.*bias` is missing"):
        PretrainedCodec.restore(fields, tensors)


def test_weight_of_another_shape_is_named(codec):
    fields, tensors = codec.state()
    name = next(name for name in tensors if name.startswith("encoder") and name.endswith("bias"))
    tensors[name] = torch.zeros(1)
    with pytest.raises(ValueError, match="weights of another shape: .*bias"):
        PretrainedCodec.restore(fields, tensors)


def test_too_many_codebooks_are_refused(folders):
    with pytest.raises(ValueError, match=r"codec\.n_codebooks=17, .* 1 to 16"):
        PretrainedCodec.fit(PretrainedConfig(str(folders / "dac"), 17, -23.0), [], seed=0)


@pytest.mark.parametrize("changes", [{"audio_channels": 2}, {"normalize": True}, {"chunk_length_s": 1.0}])
def test_stereo_encodec_is_refused_before_it_is_loaded(tmp_path, changes):
    encodec(**changes).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"codec\.model=.*mono"):
        PretrainedCodec.sample_rate_of(PretrainedConfig(str(tmp_path), 3, -23.0))


def test_other_models_are_refused(tmp_path):
    transformers.BertConfig().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"codec\.model=.* type bert; use encodec, dac, mimi"):
        PretrainedCodec.sample_rate_of(PretrainedConfig(str(tmp_path), 3, -23.0))


def test_missing_folder_says_so(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"codec\.model=.* is no folder"):
        PretrainedCodec.sample_rate_of(PretrainedConfig(str(tmp_path / "absent"), 3, -23.0))


def test_unreachable_hub_names_the_remedy(monkeypatch):
    def unreachable(*args, **kwargs):
        raise OSError("We couldn't connect")

    monkeypatch.setattr(transformers.AutoConfig, "from_pretrained", unreachable)
    with pytest.raises(FileNotFoundError, match=r"codec\.model=some/codec .*connect.*connected machine.*codec\.model="):
        PretrainedCodec.sample_rate_of(PretrainedConfig("some/codec", 3, -23.0))


def test_absent_transformers_names_the_extra(folders, monkeypatch):
    real_import = builtins.__import__

    def without_transformers(name, *args, **kwargs):
        if name == "transformers":
            raise ImportError(name)
        return real_import(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_transformers)
    with pytest.raises(ImportError, match=r"pip install 'melisma\[pretrained\]'"):
        PretrainedCodec.sample_rate_of(PretrainedConfig(str(folders / "dac"), 3, -23.0))
