"""Hydra imports what lies here wherever it composes, in DVC too. All that this does lies elsewhere."""

from pipeline.configuration import resolvers

__all__ = ["resolvers"]
