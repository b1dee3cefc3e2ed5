"""Data preparation: converts text to stored rows."""
