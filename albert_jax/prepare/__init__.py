"""Text to stored rows."""
