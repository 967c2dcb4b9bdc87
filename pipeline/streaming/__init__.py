"""Speech that is heard while it is still being made up: from an export to a file, a pipe or the sound card."""
