"""From a corpus to token shards: every recording inspected, every utterance encoded, on all cores."""
