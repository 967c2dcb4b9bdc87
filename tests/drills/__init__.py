"""Faults on purpose: `make drill` breaks everything that can break, and counts what comes back."""
