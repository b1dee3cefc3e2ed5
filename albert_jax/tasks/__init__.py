"""What a model is trained to do: one module a task."""
