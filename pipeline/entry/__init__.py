"""How a command starts and ends: its help, its settings, and errors told in one sentence."""
