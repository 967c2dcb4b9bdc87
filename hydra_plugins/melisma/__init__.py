"""Melisma's part of Hydra."""
