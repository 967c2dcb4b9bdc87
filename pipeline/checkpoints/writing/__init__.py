"""Writing checkpoints tensor by tensor: in memory for the largest of them, and resumable file by file."""
