"""Speaks through espeak-ng, in a process of its own.

    python espeak_worker.py FOLDER < utterances.json      write the WAV files, print their lengths as JSON
    python espeak_worker.py --voices                      print the known languages and variants as JSON

espeak-ng is GPL-3, and carries state from one sentence to the next, so that only a fresh process with a fixed seed
repeats its bytes. It is therefore run from outside, one process a shard, and this file imports nothing else of ours.
"""

import ctypes
import json
import os
import sys
import tempfile
import wave
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import espeakng_loader

# From espeak-ng's speak_lib.h.
AUDIO_OUTPUT_SYNCHRONOUS = 2
INITIALIZE_DONT_EXIT = 0x8000
CHARS_UTF8_ENDPAUSE = 0x1001
RATE, PITCH = 1, 3
SEED = 1
SYNTH_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)

# espeak-ng copies the path of its data into a buffer of about 180 bytes, and fails when it does not fit.
LONGEST_DATA_PATH = 140


class Espeak:
    """The library, ready to speak."""

    def __init__(self, data_path: str) -> None:
        self._library = ctypes.CDLL(espeakng_loader.get_library_path())
        self._declare()
        self.sample_rate = self._library.espeak_Initialize(
            AUDIO_OUTPUT_SYNCHRONOUS, 0, data_path.encode(), INITIALIZE_DONT_EXIT
        )
        if self.sample_rate <= 0:
            raise SystemExit(f"espeak-ng does not start with its data in {data_path} (it gave {self.sample_rate}).")
        # Initialisation seeds the breath of voices such as f3 with the time of day.
        self._library.espeak_ng_SetRandSeed(SEED)
        self._samples = bytearray()
        # The library keeps only a pointer: without this reference the callback would be collected.
        self._callback: Any = SYNTH_CALLBACK(self._collect)
        self._library.espeak_SetSynthCallback(self._callback)

    def _declare(self) -> None:
        library = self._library
        library.espeak_Initialize.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_char_p, ctypes.c_int]
        library.espeak_SetVoiceByName.argtypes = [ctypes.c_char_p]
        library.espeak_SetParameter.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int]
        unsigned, pointer = ctypes.c_uint, ctypes.c_void_p
        library.espeak_ng_SetRandSeed.argtypes = [ctypes.c_long]
        library.espeak_Synth.argtypes = [
            pointer, ctypes.c_size_t, unsigned, ctypes.c_int, unsigned, unsigned, pointer, pointer
        ]  # fmt: skip

    def _collect(self, samples: Any, count: int, _events: Any) -> int:
        if samples and count > 0:
            self._samples += ctypes.string_at(samples, 2 * count)
        return 0

    def speak(self, text: str, voice: str, words_per_minute: int, pitch: int) -> bytes:
        """Return 16-bit samples."""
        self._samples.clear()
        if self._library.espeak_SetVoiceByName(voice.encode()) != 0:
            raise SystemExit(f"espeak-ng has no voice {voice!r}.")
        self._library.espeak_SetParameter(RATE, words_per_minute, 0)
        self._library.espeak_SetParameter(PITCH, pitch, 0)
        buffer = text.encode() + b"\0"
        status = self._library.espeak_Synth(buffer, len(buffer), 0, 1, 0, CHARS_UTF8_ENDPAUSE, None, None)
        self._library.espeak_Synchronize()
        if status != 0 or not self._samples:
            raise SystemExit(f"espeak-ng cannot speak {text!r} as {voice!r} (status {status}).")
        return bytes(self._samples)


@contextmanager
def short_data_path() -> Iterator[str]:
    """The folder of espeak-ng's data, under a name that fits its buffer."""
    path = os.fspath(espeakng_loader.get_data_path())
    if len(path.encode()) <= LONGEST_DATA_PATH:
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="espeak-") as folder:
        link = Path(folder, "data")
        link.symlink_to(path, target_is_directory=True)
        yield str(link)


def known_voices(data_path: Path) -> dict[str, list[str]]:
    """The languages and the variants that a voice is put together from, as `en-us+f3`.

    espeak-ng itself speaks an unknown variant with the plain voice, and says nothing.
    """
    languages = {path.name.lower() for path in (data_path / "lang").rglob("*") if path.is_file()}
    variants = {path.name for path in (data_path / "voices" / "!v").iterdir()}
    return {"languages": sorted(languages), "variants": sorted(variants)}


def write_utterances(espeak: Espeak, folder: Path, utterances: list[dict[str, Any]]) -> dict[str, float]:
    """Write one WAV file an utterance; returns the length of each in seconds."""
    seconds = {}
    for utterance in utterances:
        samples = espeak.speak(utterance["text"], utterance["voice"], utterance["words_per_minute"], utterance["pitch"])
        with wave.open(str(folder / utterance["file"]), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(espeak.sample_rate)
            file.writeframes(samples)
        seconds[utterance["file"]] = len(samples) / 2 / espeak.sample_rate
    return seconds


def main() -> None:
    """Run the command line."""
    if sys.argv[1:] == ["--voices"]:
        json.dump(known_voices(Path(espeakng_loader.get_data_path())), sys.stdout)
        return
    with short_data_path() as data_path:
        json.dump(write_utterances(Espeak(data_path), Path(sys.argv[1]), json.load(sys.stdin)), sys.stdout)


if __name__ == "__main__":
    main()
