"""What a trained decoder is worth: the loss on held-out speech, and the speech it makes up."""
