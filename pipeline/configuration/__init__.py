"""From composed values to the dataclasses that validate them: the one room where Hydra ends."""
