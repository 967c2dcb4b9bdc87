"""Whose data, weights and settings a stage works on: what results say of themselves, and how later stages compare."""
