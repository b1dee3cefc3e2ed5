"""Training state and weights on disk, in every supported format."""
