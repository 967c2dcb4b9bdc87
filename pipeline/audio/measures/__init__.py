"""What can be said of speech from its waveform alone, without any trained network."""
