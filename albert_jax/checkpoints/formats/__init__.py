"""Readers and writers of a model's formats on disk."""
