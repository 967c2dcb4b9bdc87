"""Streaming in chunks: wait for a chunk and its look-ahead, decode, commit, move on."""

from collections.abc import Callable

import torch
from torch import Tensor

from pipeline.audio.codecs.codec import checked_codes

# (codes of context + new + look-ahead frames, number of context frames, number of new frames) → new samples.
# No look-ahead frames follow the new ones in the last chunk of a stream.
DecodeChunk = Callable[[Tensor, int, int], Tensor]


class ChunkedStream:
    """A `StreamDecoder` that hands `decode_chunk` the same windows however the codes were cut into pushes.

    A chunk is decoded as soon as its look-ahead has arrived, so the delay is `chunk_frames + lookahead_frames`;
    `finish` decodes all that is left as one last chunk.
    """

    def __init__(
        self,
        decode_chunk: DecodeChunk,
        n_codebooks: int,
        codebook_size: int,
        chunk_frames: int,
        lookahead_frames: int,
        context_frames: int,
    ) -> None:
        self.chunk_frames = chunk_frames
        self.lookahead_frames = lookahead_frames
        self.context_frames = context_frames
        self._decode_chunk = decode_chunk
        self._codebook_size = codebook_size
        self._codes = torch.zeros(0, n_codebooks, dtype=torch.int64)  # context frames, then frames not yet decoded
        self._n_context = 0
        self._finished = False

    @property
    def _n_pending(self) -> int:
        return len(self._codes) - self._n_context

    def push(self, codes: Tensor) -> Tensor:
        """Take codes [f, Q]; return the samples of every chunk that this completes.

        Raises:
            RuntimeError: the stream is finished.
        """
        if self._finished:
            raise RuntimeError("The stream is finished; start another one with `codec.stream()`.")
        codes = checked_codes(codes, self._codes.shape[1], self._codebook_size)
        self._codes = torch.cat([self._codes, codes])
        samples = [torch.zeros(0)]
        while self._n_pending >= self.chunk_frames + self.lookahead_frames:
            samples.append(self._decode(self.chunk_frames, self.lookahead_frames))
        return torch.cat(samples)

    def finish(self) -> Tensor:
        """Return the samples of the frames still pending; nothing can be pushed afterwards."""
        self._finished = True
        return self._decode(self._n_pending, 0) if self._n_pending else torch.zeros(0)

    def _decode(self, n_new: int, n_lookahead: int) -> Tensor:
        end = self._n_context + n_new
        samples = self._decode_chunk(self._codes[: end + n_lookahead], self._n_context, n_new)
        start = max(0, end - self.context_frames)
        self._codes, self._n_context = self._codes[start:], end - start
        return samples
