"""What audio files say of themselves, read without decoding them: where sound lies, and how much is promised."""

from pipeline.audio.containers.examination import examine
from pipeline.audio.containers.layout import Layout, Segment, Window

__all__ = ["Layout", "Segment", "Window", "examine"]
