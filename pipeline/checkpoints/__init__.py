"""Checkpoint layouts, one module each."""
