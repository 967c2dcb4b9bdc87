"""What spreads the shards of a preparation over processes and machines."""
