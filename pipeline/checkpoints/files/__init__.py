"""The kinds of file that checkpoints are made of, each checked before a byte of it is believed."""
