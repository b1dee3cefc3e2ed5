"""A small HTTP server for a trained model."""
