"""Exports as MLflow models: loaded by the code that is installed, without a pickle, from the folder as it is."""
