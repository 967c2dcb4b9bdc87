"""Log-mel spectra, and the way back to STFT magnitudes."""

import warnings

import torch
import torchaudio
from torch import Tensor
from torch.nn.functional import pad


def mel_filterbank(sample_rate: int, n_fft: int, n_mels: int, f_min: float, f_max: float) -> Tensor:
    """Return triangular filters [n_fft // 2 + 1, n_mels] on Slaney's mel scale, each of unit area.

    Raises:
        ValueError: the bands are so narrow that some of them hold no frequency bin.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an empty filter is an error below
        filters = torchaudio.functional.melscale_fbanks(
            n_fft // 2 + 1, f_min, f_max, n_mels, sample_rate, norm="slaney", mel_scale="slaney"
        )
    if n_empty := int((filters.amax(dim=0) <= 0).sum()):
        raise ValueError(
            f"codec.n_mels={n_mels} leaves {n_empty} mel bands without a frequency bin; "
            "lower codec.n_mels or raise codec.n_fft."
        )
    return filters


class LogMelSpectrogram:
    """`ln(max(|STFT| · filters, floor))` with a periodic Hann window of `n_fft` samples.

    Frame i is centred on sample i * hop_length; the audio is reflected at its ends, and audio shorter than one window
    is padded with silence first. S samples give 1 + S // hop_length frames.
    """

    def __init__(
        self,
        sample_rate: int,
        n_fft: int,
        hop_length: int,
        n_mels: int,
        f_min: float,
        f_max: float,
        floor: float,
    ) -> None:
        self.n_fft = n_fft
        self.hop_length = hop_length
        self.floor = floor
        self.window = torch.hann_window(n_fft)
        self.filters = mel_filterbank(sample_rate, n_fft, n_mels, f_min, f_max)
        self.inverse_filters = torch.linalg.pinv(self.filters.double()).float()

    def __call__(self, audio: Tensor) -> Tensor:
        """Return the log-mel frames [F, n_mels] of audio [S]; empty audio has none."""
        if len(audio) == 0:
            return torch.zeros(0, self.filters.shape[1])
        # The reflection needs more than half a window of audio; the frame count stays that of the audio itself.
        n_frames = 1 + len(audio) // self.hop_length
        audio = pad(audio, (0, max(0, self.n_fft - len(audio))))
        spectra = torch.stft(audio, self.n_fft, self.hop_length, window=self.window, return_complex=True)
        return self._log_mel(spectra[:, :n_frames].abs().T)

    def of_many(self, audios: Tensor, lengths: Tensor) -> Tensor:
        """Return the log-mel frames [F, n_mels] of several audios, one's after another's.

        Args:
            audios: [B, S], with silence behind those that are shorter.
            lengths: [B], none of them zero.
        """
        half = self.n_fft // 2
        reflected = audios.gather(1, _reflections(lengths.clamp_min(self.n_fft), audios.shape[1], half))
        spectra = torch.stft(
            reflected, self.n_fft, self.hop_length, window=self.window.to(audios.device), center=False,
            return_complex=True,
        )  # fmt: skip
        frame = torch.arange(spectra.shape[2], device=audios.device)
        return self._log_mel(spectra.abs().mT[frame <= lengths[:, None] // self.hop_length])

    def _log_mel(self, magnitudes: Tensor) -> Tensor:
        """The log-mel frames [F, n_mels] of STFT magnitudes [F, n_fft // 2 + 1]."""
        return (magnitudes @ self.filters.to(magnitudes.device)).clamp_min(self.floor).log()

    def magnitudes(self, log_mel: Tensor) -> Tensor:
        """Return STFT magnitudes [F, n_fft // 2 + 1] with these log-mel frames: least squares, then at least 1e-6."""
        return (log_mel.exp() @ self.inverse_filters).clamp_min(1e-6)


def _reflections(lengths: Tensor, longest: int, margin: int) -> Tensor:
    """Where to find each sample of audios that are reflected at both ends over `margin` samples: [B, S + 2 margin].

    Behind the later reflection stands any sample.
    """
    place = torch.arange(-margin, longest + margin, device=lengths.device).abs()
    last = lengths[:, None] - 1
    return torch.where(place > last, 2 * last - place, place).clamp_min(0)
