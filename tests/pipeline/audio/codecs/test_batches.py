"""Utterances encoded together: as each by itself, in order, and in batches that are not too large."""

from collections.abc import Iterator, Sequence

import pytest
import torch
from torch import Tensor

from pipeline.audio.codecs.batches import encode_all, encode_sorted
from pipeline.audio.codecs.codec import Codec
from pipeline.audio.codecs.configuration import CodecUse, MelRvqConfig, MuLawConfig
from pipeline.audio.codecs.mel_rvq import MelRvqCodec
from pipeline.audio.codecs.mu_law import MuLawCodec
from pipeline.audio.resampling import Sound

CPU = torch.device("cpu")
# The codec's own, twice it, and one that soxr takes.
RATES = [8000, 16_000, 7999]
# Two frames, less than a window, exactly one, and seconds of it; one is silent.
LENGTHS = [9000, 161, 400, 512, 8000, 16001, 7999, 3000, 12000]


@pytest.fixture(scope="module")
def codec() -> MelRvqCodec:
    config = MelRvqConfig(
        sample_rate=8000, n_fft=512, hop_length=160, n_mels=40, f_min=0.0, f_max=4000.0, log_floor=1e-4,
        loudness_db=-23.0, n_codebooks=3, codebook_size=32, fit_frames=400, kmeans_iterations=3,
        griffin_lim_iterations=2, griffin_lim_momentum=0.9, stream_chunk_frames=4, stream_lookahead_frames=2,
        stream_context_frames=1,
    )  # fmt: skip
    return MelRvqCodec.fit(config, draw([16000, 16000]), seed=0)


def draw(lengths: Sequence[int]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    audios = [torch.randn(length, generator=generator).cumsum(0).sin() * 0.1 for length in lengths]
    return [audio * (number != 3) for number, audio in enumerate(audios)]


def sounds(audios: Sequence[Tensor]) -> Iterator[Sound]:
    """As recorded at the codec's own rate."""
    return ((audio.numpy(), 8000) for audio in audios)


def test_codes_are_those_of_each_by_itself(codec: MelRvqCodec) -> None:
    audios = draw(LENGTHS)
    for alone, together in zip(map(codec.encode, audios), codec.encode_many(audios), strict=True):
        assert torch.equal(alone, together)


def test_the_order_of_utterances_stays_whatever_the_batches(codec: MelRvqCodec) -> None:
    audios = draw(LENGTHS * 3)
    alone = list(map(codec.encode, audios))
    for batch_samples in (1, 10_000, 20_000, 10**7):
        encoded = list(encode_sorted(codec, sounds(audios), CPU, batch_samples))
        assert all(torch.equal(one, other) for one, other in zip(alone, encoded, strict=True))


def test_sounds_of_other_rates_are_resampled_in_batches(codec: MelRvqCodec) -> None:
    recorded = [(audio.numpy(), rate) for audio, rate in zip(draw(LENGTHS * 3), RATES * 9, strict=True)]
    alone = list(encode_all(codec, recorded, CodecUse()))
    for batch_samples in (1, 20_000, 10**7):
        encoded = list(encode_sorted(codec, recorded, CPU, batch_samples))
        assert [codes.shape for codes in alone] == [codes.shape for codes in encoded]
        assert (torch.cat(alone) == torch.cat(encoded)).float().mean() > 0.999


def test_batches_hold_no_more_than_they_may_and_little_silence() -> None:
    seen: list[list[int]] = []

    class Watched(MuLawCodec):
        def encode_many(self, audios: Sequence[Tensor]) -> list[Tensor]:
            seen.append([len(audio) for audio in audios])
            return [self.encode(audio) for audio in audios]

    audios = draw([int(length) for length in torch.randint(100, 2000, (300,), generator=torch.Generator())])
    list(encode_sorted(Watched(MuLawConfig(8000, 256, -23.0)), sounds(audios), CPU, 16_000))
    assert max(len(batch) * max(batch) for batch in seen) <= 16_000
    total = sum(map(len, audios))
    assert sum(len(batch) * max(batch) for batch in seen) < 1.15 * total
    assert len(seen) < 1.3 * total / 16_000


def test_a_cpu_encodes_one_after_another(codec: MelRvqCodec) -> None:
    audios = draw(LENGTHS)
    assert all(
        torch.equal(one, codec.encode(audio))
        for one, audio in zip(encode_all(codec, sounds(audios), CodecUse()), audios, strict=True)
    )


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_named(codec: MelRvqCodec) -> None:
    with pytest.raises(ValueError, match=r"^codec\.device is cuda, but torch sees no GPU; set codec\.device=cpu"):
        encode_all(codec, [], CodecUse(device="cuda"))


def test_a_codec_that_no_gpu_helps_is_refused() -> None:
    codec: Codec = MuLawCodec(MuLawConfig(8000, 256, -23.0))
    with pytest.raises(ValueError, match=r"^codec\.device is cuda, but this kind of codec encodes on a CPU alone"):
        encode_all(codec, [], CodecUse(device="cuda"))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_finds_the_codes_of_a_cpu(codec: MelRvqCodec) -> None:
    recorded = [(audio.numpy(), rate) for audio, rate in zip(draw(LENGTHS * 3), RATES * 9, strict=True)]
    alone, together = (list(encode_all(codec, recorded, CodecUse(device))) for device in ("cpu", "cuda"))
    assert [codes.shape for codes in alone] == [codes.shape for codes in together]
    assert (torch.cat(alone) == torch.cat(together)).float().mean() > 0.999


@pytest.mark.parametrize(
    ("use", "message"),
    [
        ({"device": "tpu"}, "codec.device is 'tpu'; choose cpu or cuda"),
        ({"batch_seconds": 0}, "codec.batch_seconds must be a finite number between 1"),
        ({"fit_hours": -1}, "codec.fit_hours must be a finite number between"),
    ],
)
def test_what_cannot_be_is_refused(use: dict, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        CodecUse(**use)
