"""State on disk, in every format."""
