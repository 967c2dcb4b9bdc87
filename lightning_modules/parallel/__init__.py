"""Functions that spread a decoder over ranks: mesh, sharding, token dispatch, clipping, the strategy."""
