"""The embedded corpus: our own sentences spoken by espeak-ng, as many minutes as are asked for."""

import hashlib
import json
import math
import random
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path

from pipeline.audio.corpora import sentences, words
from pipeline.audio.corpora.configuration import EspeakConfig
from pipeline.audio.corpora.corpus import FileCorpus, Recording
from pipeline.audio.corpora.espeak_synthesis import (
    WORKER,
    Request,
    installed_version,
    known_voices,
    shard_seconds,
    synthesise,
)
from pipeline.configuration.settings import near_matches

# A shard is what one process speaks: short enough to share an hour among many cores, long enough to be worth a start.
SHARD_UTTERANCES = 50
# A guess at the length of a sentence, to plan with before anything has been spoken.
TYPICAL_SECONDS = 4.0


@dataclass(frozen=True)
class EspeakCorpus(FileCorpus):
    """Recordings that are synthesised into `cache` when they are first asked for, and found there afterwards.

    Every sentence occurs once, so no split by file puts the same text on both sides. The folder is named by all that
    decides over its bytes except `minutes`: a longer corpus begins with the recordings of a shorter one.
    """

    config: EspeakConfig
    cache: Path
    seed: int
    name = "espeak"

    @cached_property
    def folder(self) -> Path:
        """Where the recordings lie."""
        settings = {name: value for name, value in asdict(self.config).items() if name != "minutes"}
        settings |= {"seed": self.seed, "shard": SHARD_UTTERANCES, "espeakng-loader": installed_version()}
        fingerprint = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
        for source in (WORKER, sentences.__file__, words.__file__, __file__):
            fingerprint.update(Path(source).read_bytes())
        return Path(self.cache).absolute() / f"espeak-{fingerprint.hexdigest()[:16]}"

    def recordings(self) -> list[Recording]:
        """The first recordings that together last for `minutes`, spoken now unless they already are in the cache.

        Raises:
            ModuleNotFoundError: espeakng-loader is not installed.
            ValueError: a voice is unknown, or there are not enough different sentences.
            RuntimeError: espeak-ng failed.
        """
        seconds_wanted = self.config.minutes * 60
        n_shards = math.ceil(seconds_wanted / (SHARD_UTTERANCES * TYPICAL_SECONDS))
        while True:
            seconds = self._synthesise(n_shards)
            total = sum(seconds.values())
            if total >= seconds_wanted:
                break
            n_shards = max(n_shards + 1, math.ceil(n_shards * seconds_wanted / total))
        recordings, total = [], 0.0
        for request in islice(self._plan(), n_shards * SHARD_UTTERANCES):
            if total >= seconds_wanted:
                break
            recordings.append(Recording(request.file, speaker=request.voice, transcript=request.text))
            total += seconds[request.file]
        return recordings

    def _plan(self) -> Iterator[Request]:
        """All that could be spoken, in order; endless for all practical purposes."""
        rng = random.Random(f"espeak/{self.seed}")
        for index, text in enumerate(sentences.distinct_sentences(self.seed)):
            yield Request(
                file=f"shard_{index // SHARD_UTTERANCES:03d}/{index % SHARD_UTTERANCES:03d}.wav",
                text=text,
                voice=rng.choice(self.config.voices),
                words_per_minute=rng.randint(*self.config.words_per_minute),
                pitch=rng.randint(*self.config.pitch),
            )

    def _synthesise(self, n_shards: int) -> dict[str, float]:
        """Speak the shards that the cache lacks; returns the length of every recording of all of them."""
        requests = list(islice(self._plan(), n_shards * SHARD_UTTERANCES))
        if len(requests) < n_shards * SHARD_UTTERANCES:
            raise ValueError(
                f"data.minutes={self.config.minutes} asks for more than the {len(requests)} different sentences "
                "there are; lower it."
            )
        shards = [requests[start : start + SHARD_UTTERANCES] for start in range(0, len(requests), SHARD_UTTERANCES)]
        missing = [shard for shard in shards if shard_seconds(self.folder, shard) is None]
        if missing:
            self._check_voices()
            synthesise(self.folder, missing)
        seconds: dict[str, float] = {}
        for shard in shards:
            seconds |= shard_seconds(self.folder, shard) or {}
        return seconds

    def _check_voices(self) -> None:
        known = known_voices()
        for voice in self.config.voices:
            language, plus, variant = voice.partition("+")
            if language not in known["languages"]:
                hint = near_matches(language, known["languages"])
                raise ValueError(f"data.voices: espeak-ng has no voice {voice!r}; {hint}")
            if plus and variant not in known["variants"]:
                hint = near_matches(variant, known["variants"])
                raise ValueError(f"data.voices: espeak-ng has no variant {variant!r} for {voice!r}; {hint}")
