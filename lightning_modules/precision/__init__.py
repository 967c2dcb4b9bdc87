"""Number formats of training: plugins for Lightning, recipes of FP8, and their kernels."""
