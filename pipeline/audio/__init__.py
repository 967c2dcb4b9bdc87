"""Waveforms in, waveforms out."""
