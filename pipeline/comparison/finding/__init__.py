"""What a model is called by, and where that leads: a folder, an MLflow run, a DVC experiment or a git revision."""
