"""What stages need and no reader of the product looks for: files, processes, fingerprints, tracked runs of stages."""
