"""Readers of task files: text in, examples out."""
