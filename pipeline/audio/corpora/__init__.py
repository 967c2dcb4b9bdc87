"""Where recordings come from."""

from pipeline.audio.corpora.corpus import Corpus, Recording, UnusableRecording
from pipeline.audio.corpora.registry import KINDS, build_corpus

__all__ = ["KINDS", "Corpus", "Recording", "UnusableRecording", "build_corpus"]
