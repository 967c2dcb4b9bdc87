"""Mu-law companding (ITU-T G.711's curve): one code a sample, nothing fitted."""

from torch import Tensor
from torchaudio.functional import mu_law_decoding, mu_law_encoding

from pipeline.audio.codecs.codec import checked_audio, checked_codes, normalise_loudness
from pipeline.audio.codecs.configuration import MuLawConfig
from pipeline.audio.codecs.frame_codec import FrameCodec


class MuLawCodec(FrameCodec):
    """One codebook of `quantization_channels` levels, spaced finely near zero."""

    kind = "mu_law"
    config_class = MuLawConfig
    config: MuLawConfig

    @property
    def codebook_size(self) -> int:
        """Levels a sample can take."""
        return self.config.quantization_channels

    @property
    def frame_rate(self) -> float:
        """Frames a second: one a sample."""
        return float(self.config.sample_rate)

    def encode(self, audio: Tensor) -> Tensor:
        """Return the codes [S, 1] of audio [S], brought to the configured loudness first."""
        audio = normalise_loudness(checked_audio(audio), self.config.loudness_db)
        return mu_law_encoding(audio.clamp(-1, 1), self.codebook_size)[:, None]

    def decode(self, codes: Tensor) -> Tensor:
        """Return the audio [F] of codes [F, 1]."""
        codes = checked_codes(codes, self.n_codebooks, self.codebook_size)
        return mu_law_decoding(codes[:, 0], self.codebook_size).float()
