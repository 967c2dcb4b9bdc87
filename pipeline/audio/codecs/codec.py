"""What every codec offers, and the checks at its two doors."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol

import torch
from torch import Tensor

# Waveforms at the codec's sample rate: an iterable, or a function that starts one afresh.
Waveforms = Iterable[Tensor] | Callable[[], Iterator[Tensor]]


# The RMS level below which audio is digital silence: -120 dB re full scale.
SILENT = 1e-6


class StreamDecoder(Protocol):
    """Turns codes into audio while they are still being generated."""

    def push(self, codes: Tensor) -> Tensor:
        """Take codes [f, Q]; return the samples [s] that can no longer change, possibly none."""

    def finish(self) -> Tensor:
        """Return the samples [s] still held back; the stream ends here."""


class Codec(Protocol):
    """Audio to codes and back: `Q` codebooks of `codebook_size` entries, `frame_rate` frames a second."""

    @property
    def sample_rate(self) -> int:
        """Samples a second, of what is encoded and of what is decoded."""

    @property
    def n_codebooks(self) -> int:
        """Codes a frame, Q."""

    @property
    def codebook_size(self) -> int:
        """Entries of each codebook."""

    @property
    def frame_rate(self) -> float:
        """Frames a second."""

    def encode(self, audio: Tensor) -> Tensor:
        """Return the int64 codes [F, Q] of mono floating-point audio [S]; empty audio has no frames."""

    def decode(self, codes: Tensor) -> Tensor:
        """Return the float32 audio [S] of codes [F, Q]; no frames give empty audio."""

    def stream(self) -> StreamDecoder:
        """Start decoding one utterance piece by piece."""

    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Return what `storage.save_codec` writes: JSON fields with `kind` and `config`, and named tensors."""


def checked_audio(audio: Tensor, device: torch.device | str = "cpu") -> Tensor:
    """Return `audio` as float32 on a device.

    Raises:
        ValueError: it is not one-dimensional, not floating point, or holds NaN or infinity.
    """
    audio = torch.as_tensor(audio)
    if audio.ndim != 1 or not audio.is_floating_point():
        raise ValueError(
            f"A codec encodes mono floating-point audio of shape [samples], not {audio.dtype} of shape "
            f"{list(audio.shape)}; mix the channels down and scale integers to [-1, 1] first."
        )
    if not torch.isfinite(audio).all():
        raise ValueError("The audio holds NaN or infinity; screen the recording out or repair it.")
    return audio.detach().to(device, torch.float32)


def checked_codes(codes: Tensor, n_codebooks: int, codebook_size: int) -> Tensor:
    """Return `codes` as int64 on the CPU.

    Raises:
        ValueError: the shape is not [frames, n_codebooks], the type is not an integer, or a code is out of range.
    """
    if codes.ndim != 2 or codes.shape[1] != n_codebooks or codes.is_floating_point() or codes.is_complex():
        raise ValueError(
            f"Codes must be integers of shape [frames, {n_codebooks}], not {codes.dtype} of shape {list(codes.shape)}."
        )
    codes = codes.detach().to("cpu", torch.int64)
    if len(codes) and not 0 <= int(codes.min()) <= int(codes.max()) < codebook_size:
        raise ValueError(
            f"Codes must lie in 0 … {codebook_size - 1}, found {int(codes.min())} … {int(codes.max())}; "
            "they may come from a codec with larger codebooks."
        )
    return codes


def checked_tensors(tensors: dict[str, Tensor], shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Return `tensors` when their names and shapes are exactly `shapes`.

    Raises:
        ValueError: a tensor is missing, unknown, or of another shape; the message names it.
    """
    if missing := sorted(shapes.keys() - tensors.keys()):
        raise ValueError(f"the tensor `{missing[0]}` is missing")
    if unknown := sorted(tensors.keys() - shapes.keys()):
        raise ValueError(f"the tensor `{unknown[0]}` is none of this codec's")
    for name, shape in shapes.items():
        if tuple(tensors[name].shape) != tuple(shape):
            raise ValueError(f"the tensor `{name}` has shape {list(tensors[name].shape)} instead of {list(shape)}")
    return tensors


def normalise_loudness(audio: Tensor, loudness_db: float) -> Tensor:
    """Bring audio [S] to an RMS level of `loudness_db` dB re full scale, or as near as its peak allows.

    Nothing is clipped. Digital silence (below -120 dB) stays as it is: there is nothing to make louder.
    """
    rms = float(audio.double().square().mean().sqrt()) if len(audio) else 0.0
    if rms < SILENT:
        return audio
    gain = min(10 ** (loudness_db / 20) / rms, 1 / float(audio.abs().max()))
    return audio * gain


def normalise_many(audios: Tensor, lengths: Tensor, loudness_db: float) -> Tensor:
    """Bring each of several audios [B, S] to a loudness as `normalise_loudness` does; the first `lengths` [B] count."""
    rms = (audios.double().square().sum(dim=1) / lengths).sqrt()
    gain = torch.minimum(10 ** (loudness_db / 20) / rms, 1 / audios.abs().amax(dim=1).double())
    return audios * torch.where(rms < SILENT, 1.0, gain)[:, None].float()
