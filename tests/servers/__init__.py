"""Real servers of a team, as `deploy/` starts them: `make test-servers`."""
