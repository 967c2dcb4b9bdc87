"""One pass over a recording: how long and how loud it is, whether it is sound at all, and which samples are used."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.audio.decoding import TOLERATED_SECONDS, AudioStream
from pipeline.audio.source import Source
from pipeline.audio.stretch import open_sound
from pipeline.audio.unusable import TooLongRecording, UnusableRecording

# A lone sample at full scale is a loud peak; a waveform that stays there has been cut off.
FULL_SCALE = 0.999
CLIPPED_RUN = 3
# Channels cancel when their mean has less than this share of the RMS of the loudest of them: 20 dB.
CANCELLED = 0.1
# Silence is not listened to for ever: 23 minutes of it at 48 kHz, which a few kilobytes can decode to.
SILENT_FRAMES = 1 << 26


@dataclass(frozen=True)
class Take:
    """Which samples of a file are used.

    Attributes:
        n_frames: so many from its beginning.
        channel: one channel, counted from 0, or the mean of all of them.
    """

    n_frames: int
    channel: int | None = None


@dataclass(frozen=True)
class Survey:
    """What a recording holds.

    Attributes:
        sample_rate: in Hz.
        take: the samples that all the rest is about.
        sha256: of these samples, as float32.
        rms: their RMS, full scale 1, a constant offset removed.
        clipped_fraction: the share of them in runs of three or more at full scale.
        finite: whether none is NaN or infinite.
        peak: the largest of them.
        notes: what is odd, although no sound is missing.
        damage: what is missing; empty where nothing is.
    """

    sample_rate: int
    take: Take
    sha256: str
    rms: float
    clipped_fraction: float
    finite: bool
    peak: float
    notes: tuple[str, ...] = ()
    damage: str = ""

    @property
    def seconds(self) -> float:
        """The length of what is used."""
        return self.take.n_frames / self.sample_rate


class Statistics:
    """What a survey tells of samples [S], gathered block by block."""

    def __init__(self) -> None:
        self.n_frames = 0
        self.n_clipped = 0
        self.finite = True
        self.peak = 0.0
        self._digest = hashlib.sha256()
        self._mean = 0.0
        self._squares = 0.0
        self._run = 0

    def add(self, block: np.ndarray) -> None:
        """Take samples [S] in, which follow the ones before."""
        block = np.ascontiguousarray(block, dtype=np.float32)
        self._digest.update(block.tobytes())
        self.finite = self.finite and bool(np.isfinite(block).all())
        if not self.finite:
            self.n_frames += len(block)
            return
        # Chan's update of mean and squared deviations: exact to the last bits, however long the recording.
        total = self.n_frames + len(block)
        mean = float(np.mean(block, dtype=np.float64))
        shift = mean - self._mean
        self._squares += float(np.var(block, dtype=np.float64)) * len(block)
        self._squares += shift**2 * self.n_frames * len(block) / total
        self._mean += shift * len(block) / total
        self.n_frames = total
        magnitude = np.abs(block)
        self.peak = max(self.peak, float(magnitude.max(initial=0.0)))
        self._count_clipped(magnitude >= FULL_SCALE)

    def _count_clipped(self, full: np.ndarray) -> None:
        """Count the runs at full scale; one that reaches the end of a block may go on in the next."""
        edges = np.flatnonzero(np.diff(full, prepend=False, append=False))
        starts, stops = edges[::2], edges[1::2]
        runs = stops - starts
        if len(runs) and starts[0] == 0:
            runs[0] += self._run
        elif self._run >= CLIPPED_RUN:
            self.n_clipped += self._run
        self._run = 0
        if len(runs) and stops[-1] == len(full):
            self._run = int(runs[-1])
            runs = runs[:-1]
        self.n_clipped += int(runs[runs >= CLIPPED_RUN].sum())

    @property
    def sha256(self) -> str:
        """The digest of the samples so far."""
        return self._digest.hexdigest()

    @property
    def rms(self) -> float:
        """Their RMS, the mean removed."""
        return float(np.sqrt(self._squares / max(self.n_frames, 1)))

    @property
    def clipped_fraction(self) -> float:
        """The share of them in runs of three or more at full scale."""
        last_run = self._run if self._run >= CLIPPED_RUN else 0
        return (self.n_clipped + last_run) / max(self.n_frames, 1)


def survey(place: Source | Path | str, silence_rms: float, max_seconds: float) -> Survey:
    """Read a recording once, to the end of its sound, in bounded memory.

    Args:
        place: where it lies.
        silence_rms: the RMS below which a recording is silent.
        max_seconds: longer recordings are not read to their end.

    Raises:
        TooLongRecording: it is longer than `max_seconds`.
        UnusableRecording: the file cannot be opened, or is silent for hours on end.
    """
    source = Source.of(place)
    with open_sound(source) as stream:
        if stream.channels < 1 or stream.sample_rate < 1:
            raise UnusableRecording(f"its header tells of {stream.channels} channels at {stream.sample_rate} Hz")
        if (source.channel or 0) >= stream.channels:
            raise UnusableRecording(f"channel {source.channel} is asked for, counted from 0, of {stream.channels}")
        if (stream.announced_seconds or 0) > max_seconds:
            raise TooLongRecording(_too_long(max_seconds))
        mean = Statistics()
        # The channels of a mono file are its mean.
        channels = [Statistics() for _ in range(stream.channels)] if stream.channels > 1 else []
        n_silent = 0
        for block in stream.blocks():
            mean.add(_mean(block))
            for channel, statistics in enumerate(channels):
                statistics.add(block[:, channel])
            if mean.n_frames > max_seconds * stream.sample_rate:
                raise TooLongRecording(_too_long(max_seconds))
            n_silent = n_silent + len(block) if np.ptp(block, axis=0).max() < silence_rms else 0
            if n_silent > SILENT_FRAMES:
                raise UnusableRecording(f"silent for {n_silent / stream.sample_rate / 60:.0f} minutes on end")
        return _describe(stream, source, mean, channels, silence_rms)


def _too_long(max_seconds: float) -> str:
    return f"longer than {max_seconds / 3600:g} h (data.screening.max_hours)"


def _describe(
    stream: AudioStream, source: Source, mean: Statistics, channels: list[Statistics], silence_rms: float
) -> Survey:
    channel, notes = source.channel, list(stream.notes)
    if channel is None and channels and all(statistics.finite for statistics in channels):
        loudest = max(range(len(channels)), key=lambda index: channels[index].rms)
        if channels[loudest].rms >= silence_rms and mean.rms < CANCELLED * channels[loudest].rms:
            channel = loudest
            notes.append(f"its channels cancel when averaged: channel {channel + 1} is taken")
    used = mean if channel is None or not channels else channels[channel]
    damage = stream.damage
    if source.start is None and source.seconds is not None and not damage:
        held = used.n_frames / stream.sample_rate
        if held < source.seconds - TOLERATED_SECONDS:
            damage = f"holds {held:.1f} of the {source.seconds:.1f} s that its manifest tells of"
        elif held > source.seconds + TOLERATED_SECONDS:
            notes.append(f"its manifest tells of {source.seconds:.1f} s, {held:.1f} s are there and were read")
    return Survey(
        stream.sample_rate,
        Take(used.n_frames, channel),
        used.sha256,
        used.rms,
        used.clipped_fraction,
        used.finite,
        used.peak,
        tuple(notes),
        damage,
    )


def _mean(block: np.ndarray) -> np.ndarray:
    """The mean [S] of the channels of samples [S, channels]."""
    if block.shape[1] == 1:
        return block[:, 0]
    with np.errstate(invalid="ignore", over="ignore"):
        return block.mean(axis=1, dtype=np.float32)


def taken_blocks(stream: AudioStream, take: Take) -> Iterator[np.ndarray]:
    """Yield the samples [S] of an open file that are used, block by block.

    Raises:
        UnusableRecording: the file does not hold them any more.
    """
    missing = take.n_frames
    for block in stream.blocks():
        samples = _mean(block) if take.channel is None else block[:, take.channel]
        yield samples[:missing]
        missing -= min(missing, len(samples))
        if not missing:
            return
    if missing:
        raise UnusableRecording(f"has changed since it was inspected: {missing} samples fewer")
