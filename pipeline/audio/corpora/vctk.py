"""VCTK 0.92: `wav48_silence_trimmed/{speaker}/{speaker}_{number}_{microphone}.flac`, 48 kHz."""

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import torchaudio.datasets

from pipeline.audio.corpora.configuration import VctkConfig
from pipeline.audio.corpora.corpus import Recording
from pipeline.audio.corpora.published import DownloadableDataset, first_line


@dataclass(frozen=True)
class Vctk(DownloadableDataset):
    """Sentences read by some 110 speakers of English."""

    config: VctkConfig
    name = "vctk"
    prefixes = ("VCTK-Corpus-0.92",)
    landmark = "wav48_silence_trimmed"

    def fetch(self, folder: Path) -> None:
        """Download and unpack the dataset into an empty folder, through torchaudio."""
        torchaudio.datasets.VCTK_092(str(folder), mic_id=self.config.microphone, download=True)

    def recordings(self) -> list[Recording]:
        """All recordings through the microphone, sorted by their paths."""
        recordings = []
        for file in self.files(f"{self.landmark}/*/*_{self.config.microphone}.flac"):
            path = PurePosixPath(file)
            speaker, utterance = path.parts[1], path.stem.removesuffix(f"_{self.config.microphone}")
            transcript, note = first_line(self.folder / "txt" / speaker / f"{utterance}.txt")
            recordings.append(Recording(file, speaker=speaker, transcript=transcript, note=note))
        return recordings
