"""What a decoder is, measured from its modules and by running it, beside the paper and the model card."""
