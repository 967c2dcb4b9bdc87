"""Speech over HTTP: several listeners at once, each hearing an utterance while it is made up."""
