"""Sweeps: which jobs there are, what became of them, and what they show."""
