"""A model's formats on disk."""
