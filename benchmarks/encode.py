"""How fast a codec encodes recordings that lie in memory, in seconds of audio a second.

    python -m benchmarks.encode [--codec mel_rvq_4x256] [--device cpu] [--hours 3] [--sample-rate 8000]
                                [--batch-seconds 60,600,2400] [--plain-hours 0.2]

The recordings are made up, 3 to 17 s long, at the codec's rate or at the one given. A mel-RVQ codec is fitted on a few
minutes of them; a pretrained one has its published architecture and random weights, which take as long. Prints one JSON
line for each size of batches (a CPU has none): the rate by the clock, seconds of processor time, the GPU's peak memory,
and the share of codes that a CPU finds too; and the rate of `plain`, a loop of torchaudio on the same device, where the
codec is mel-RVQ. The first call, which loads the GPU's libraries, is not timed. Run it with OMP_NUM_THREADS=1.
"""

import argparse
import json
import time
from collections.abc import Callable, Sequence
from typing import Any

import hydra
import numpy as np
import torch

from benchmarks.made_up_speech import recordings
from benchmarks.plain_tokens import encode_plainly
from pipeline.audio.codecs.batches import encode_all
from pipeline.audio.codecs.codec import Codec
from pipeline.audio.codecs.configuration import CodecUse, PretrainedConfig, codec_settings
from pipeline.audio.codecs.mel_rvq import MelRvqCodec
from pipeline.audio.codecs.pretrained import PretrainedCodec
from pipeline.audio.resampling import Sound
from pipeline.configuration.composed import CONF

# Of transformers: configuration and model of each pretrained codec.
ARCHITECTURES = {
    "encodec": ("EncodecConfig", "EncodecModel"),
    "dac": ("DacConfig", "DacModel"),
    "mimi": ("MimiConfig", "MimiModel"),
}
FIT_HOURS = 0.1
# Recordings that a CPU encodes too, for comparison.
N_COMPARED = 8


def build_codec(name: str) -> Codec:
    """The codec of conf/codec/NAME.yaml, fitted on made-up speech or with random weights."""
    with hydra.initialize_config_dir(str(CONF), version_base=None):
        settings = codec_settings(hydra.compose("config", [f"codec={name}"]).codec)
    if isinstance(settings, PretrainedConfig):
        import transformers

        configuration, model = (getattr(transformers, name) for name in ARCHITECTURES[name])
        torch.manual_seed(1)
        return PretrainedCodec(settings, model(configuration()))
    rate = MelRvqCodec.sample_rate_of(settings)
    return MelRvqCodec.fit(settings, [torch.from_numpy(one) for one in recordings(FIT_HOURS, rate, seed=2)], seed=1)


def timed(encode: Callable[[], object]) -> tuple[float, float]:
    """Seconds that a call takes, by the clock and of processor time."""
    began, cpu_began = time.perf_counter(), time.process_time()
    encode()
    return time.perf_counter() - began, time.process_time() - cpu_began


def measure(codec: Codec, sounds: Sequence[Sound], use: CodecUse) -> dict[str, Any]:
    """Encode everything with batches of one size."""
    seconds = sum(len(samples) / rate for samples, rate in sounds)
    list(encode_all(codec, sounds[:N_COMPARED], use))
    if use.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    clock, cpu = timed(lambda: list(encode_all(codec, sounds, use)))
    told = {"batch_seconds": use.batch_seconds, "times_real_time": round(seconds / clock), "cpu_seconds": round(cpu, 2)}
    if use.device == "cuda":
        told["peak_gib"] = round(torch.cuda.max_memory_allocated() / 2**30, 2)
    return told


def agreement(codec: Codec, sounds: Sequence[Sound], use: CodecUse) -> float:
    """The share of codes that a CPU finds too."""
    there = torch.cat(list(encode_all(codec, sounds, use)))
    if isinstance(codec, PretrainedCodec):
        codec.model.cpu()
    return float((there == torch.cat(list(encode_all(codec, sounds, CodecUse())))).float().mean())


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.encode", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--codec", default="mel_rvq_4x256", help="a file of conf/codec, mel-RVQ or pretrained")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--hours", type=float, default=3.0)
    parser.add_argument("--sample-rate", type=int, help="of the recordings, in Hz; the codec's, where it is left out")
    parser.add_argument("--batch-seconds", default="60,600,2400", help="sizes, separated by commas")
    parser.add_argument("--plain-hours", type=float, default=0.2, help="that the plain loop encodes; 0: none")
    options = parser.parse_args(arguments)
    codec = build_codec(options.codec)
    rate = options.sample_rate or codec.sample_rate
    sounds = [(samples, rate) for samples in recordings(options.hours, rate)]
    about = {"codec": options.codec, "sample_rate": rate, "hours": options.hours}
    about["device"] = torch.cuda.get_device_name() if options.device == "cuda" else "cpu"
    for size in options.batch_seconds.split(",") if options.device == "cuda" else ["1"]:
        use = CodecUse(options.device, float(size))
        print(json.dumps({**about, **measure(codec, sounds, use)}), flush=True)
    if isinstance(codec, MelRvqCodec) and rate == codec.sample_rate and options.plain_hours:
        print(json.dumps({**about, **measure_plain(codec, sounds, options)}), flush=True)
    print(json.dumps({**about, "codes_as_on_a_cpu": agreement(codec, sounds[:N_COMPARED], use)}))


def measure_plain(codec: MelRvqCodec, sounds: Sequence[Sound], options: argparse.Namespace) -> dict[str, Any]:
    """Encode the first hours by the plain loop."""
    ends = np.cumsum([len(samples) for samples, _ in sounds]) / (codec.sample_rate * 3600)
    audios = [torch.from_numpy(samples) for samples, _ in sounds[: 1 + int((ends < options.plain_hours).sum())]]
    device = torch.device(options.device)
    encode_plainly(audios[:1], codec, device)
    clock, cpu = timed(lambda: encode_plainly(audios, codec, device))
    seconds = sum(map(len, audios)) / codec.sample_rate
    return {"peer": "plain", "times_real_time": round(seconds / clock), "cpu_seconds": round(cpu, 2)}


if __name__ == "__main__":
    main()
