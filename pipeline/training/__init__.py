"""What a training leaves behind while it runs, and what its ranks agree on."""
