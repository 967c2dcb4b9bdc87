"""Whether one model is better than another: the same utterances, prompts and seeds, and a test before the word."""
