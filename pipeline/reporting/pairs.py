"""Minimal pairs: what is asked, how often a model is right, and what that says."""

import math
from collections.abc import Mapping

CHANCE = 0.5
# Task: the name a reader sees, and what is wrong on the false side.
TASKS = {
    "continuation": ("Continuation", "goes on as another utterance of the same speaker does"),
    "speaker": ("Speaker", "goes on in another speaker's voice"),
    "segments": ("Order", "two neighbouring stretches have changed places"),
    "reversed": ("Direction of time", "a stretch runs backwards"),
    "words": ("Words", "two spoken words have exchanged their last syllables"),
}


def accuracy(metrics: Mapping[str, float], task: str) -> dict[str, float]:
    """A task's accuracy, its bounds, and what the bigram reaches; empty where it was not asked."""
    name = f"eval/pairs/{task}"
    if name not in metrics:
        return {}
    keys = {"value": name, "low": f"{name}/low", "high": f"{name}/high", "bigram": f"{name}/bigram"}
    return {key: metrics.get(metric, math.nan) for key, metric in keys.items()}


def pairs_sentence(found: Mapping[str, float]) -> str:
    """What an accuracy says: only an interval that leaves chance out says anything."""
    if math.isnan(found["low"]):
        return "Too few utterances to tell."
    if found["low"] > CHANCE:
        return "The model can tell." if found["low"] > found["bigram"] else "The model can tell, but so can a bigram."
    if found["high"] < CHANCE:
        return "The model prefers what is wrong."
    return "No telling from chance."
