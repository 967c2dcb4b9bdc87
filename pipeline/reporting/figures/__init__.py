"""Figures as inline SVG: one look, legible on light and dark paper."""
