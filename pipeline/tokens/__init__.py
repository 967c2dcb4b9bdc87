"""Audio tokens on disk, and what can be said of them by counting."""
