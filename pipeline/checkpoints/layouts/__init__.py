"""Layouts that checkpoints come in, a module each."""
