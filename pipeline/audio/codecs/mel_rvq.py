"""A codec without downloaded weights: residual vector quantisation of log-mel frames, spoken by Griffin-Lim."""

from collections.abc import Iterator, Sequence, Sized
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm

from pipeline.audio.codecs.chunked_stream import ChunkedStream
from pipeline.audio.codecs.codec import (
    Waveforms,
    checked_audio,
    checked_codes,
    checked_tensors,
    normalise_loudness,
    normalise_many,
)
from pipeline.audio.codecs.configuration import MelRvqConfig
from pipeline.audio.codecs.griffin_lim import GriffinLim, GriffinLimStream
from pipeline.audio.codecs.log_mel import LogMelSpectrogram
from pipeline.audio.codecs.vector_quantisation import (
    ResidualVectorQuantiser,
    fit_residual_codebooks,
    sample_vectors,
)
from pipeline.configuration.settings import read_settings
from pipeline.plumbing.threads import single_threaded


class MelRvqCodec:
    """Log-mel frames minus their train mean [n_mels], as entries of codebooks [Q, K, n_mels].

    Audio of S samples has 1 + S // hop_length frames; F frames decode to F * hop_length samples.
    """

    kind = "mel_rvq"
    config_class = MelRvqConfig

    def __init__(self, config: MelRvqConfig, mean: Tensor, codebooks: Tensor) -> None:
        self.config = config
        self.mean = mean
        self.quantiser = ResidualVectorQuantiser(codebooks)
        self.log_mel = _log_mel_spectrogram(config)
        self.griffin_lim = GriffinLim(
            config.n_fft, config.hop_length, config.griffin_lim_iterations, config.griffin_lim_momentum
        )

    @classmethod
    def fit(cls, config: MelRvqConfig, waveforms: Waveforms, seed: int) -> "MelRvqCodec":
        """Fit mean and codebooks to `fit_frames` frames drawn uniformly from all the waveforms.

        The waveforms are read once, to the end, in bounded memory; hand over a subset of a very large corpus. The same
        waveforms, in the same order, and the same seed give the same bits.
        """
        log_mel = _log_mel_spectrogram(config)

        def frames() -> Iterator[Tensor]:
            iterable = waveforms() if callable(waveforms) else waveforms
            total = len(iterable) if isinstance(iterable, Sized) else None
            for audio in tqdm(iterable, desc="Sampling frames", unit="utterance", total=total, disable=None):
                yield log_mel(normalise_loudness(checked_audio(audio), config.loudness_db))

        with single_threaded():
            sample = sample_vectors(frames(), config.fit_frames, seed)
            mean = sample.double().mean(dim=0).float()
            quantiser = fit_residual_codebooks(
                sample - mean, config.n_codebooks, config.codebook_size, config.kmeans_iterations, seed
            )
        return cls(config, mean, quantiser.codebooks)

    @classmethod
    def restore(cls, fields: dict[str, Any], tensors: dict[str, Tensor]) -> "MelRvqCodec":
        """Rebuild the codec from what `state` returned; raises a ValueError that names the field or tensor at fault."""
        config = read_settings(MelRvqConfig, fields["config"], "codec")
        shapes = {"mean": (config.n_mels,), "codebooks": (config.n_codebooks, config.codebook_size, config.n_mels)}
        tensors = checked_tensors(tensors, shapes)
        for name, tensor in tensors.items():
            if tensor.dtype != torch.float32 or not torch.isfinite(tensor).all():
                raise ValueError(f"the tensor `{name}` must hold finite float32 numbers")
        return cls(config, tensors["mean"], tensors["codebooks"])

    @staticmethod
    def sample_rate_of(config: MelRvqConfig) -> int:
        """Return the sample rate a codec of this configuration works at."""
        return config.sample_rate

    @property
    def sample_rate(self) -> int:
        """Samples a second."""
        return self.config.sample_rate

    @property
    def n_codebooks(self) -> int:
        """Codes a frame."""
        return self.config.n_codebooks

    @property
    def codebook_size(self) -> int:
        """Entries of each codebook."""
        return self.config.codebook_size

    @property
    def frame_rate(self) -> float:
        """Frames a second."""
        return self.config.sample_rate / self.config.hop_length

    def encode(self, audio: Tensor) -> Tensor:
        """Return the codes [F, Q] of audio [S], brought to the configured loudness first."""
        log_mel = self.log_mel(normalise_loudness(checked_audio(audio), self.config.loudness_db))
        return self.quantiser.encode(log_mel - self.mean)

    def encode_many(self, audios: Sequence[Tensor]) -> list[Tensor]:
        """Return the codes [F, Q] of each of several audios [S], computed where they lie, as `encode` does each."""
        device, n_samples = audios[0].device, [len(audio) for audio in audios]
        lengths = torch.tensor(n_samples, device=device)
        # Checked together, since every answer is waited for.
        checked = checked_audio(torch.cat(list(audios)), device).split(n_samples)
        silence = torch.zeros(self.config.n_fft, device=device)  # as long as the shortest audio is made
        padded = pad_sequence([*checked, silence], batch_first=True)[:-1]
        log_mel = self.log_mel.of_many(normalise_many(padded, lengths, self.config.loudness_db), lengths)
        quantiser = ResidualVectorQuantiser(self.quantiser.codebooks.to(device))
        codes = quantiser.encode(log_mel - self.mean.to(device)).cpu()
        return list(codes.split([1 + length // self.config.hop_length for length in n_samples]))

    def decode(self, codes: Tensor) -> Tensor:
        """Return the audio [F * hop_length] of codes [F, Q]; the same codes always give the same audio."""
        return self.griffin_lim.reconstruct(
            self._magnitudes(checked_codes(codes, self.n_codebooks, self.codebook_size))
        )

    def stream(self) -> ChunkedStream:
        """Start a decoder that returns each chunk once its look-ahead has arrived.

        Its waveform differs from `decode`'s, since phases are chosen without the future, but not with how the codes
        were cut into pushes.
        """
        synthesis = GriffinLimStream(self.griffin_lim)
        return ChunkedStream(
            lambda codes, n_context, n_new: synthesis.step(self._magnitudes(codes), n_context, n_new),
            self.n_codebooks,
            self.codebook_size,
            self.config.stream_chunk_frames,
            self.config.stream_lookahead_frames,
            self.config.stream_context_frames,
        )

    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Return the fields and tensors that `restore` takes."""
        fields = {"kind": self.kind, "config": asdict(self.config)}
        return fields, {"mean": self.mean, "codebooks": self.quantiser.codebooks}

    def _magnitudes(self, codes: Tensor) -> Tensor:
        return self.log_mel.magnitudes(self.quantiser.decode(codes) + self.mean)


def _log_mel_spectrogram(config: MelRvqConfig) -> LogMelSpectrogram:
    return LogMelSpectrogram(
        config.sample_rate,
        config.n_fft,
        config.hop_length,
        config.n_mels,
        config.f_min,
        config.f_max,
        config.log_floor,
    )
