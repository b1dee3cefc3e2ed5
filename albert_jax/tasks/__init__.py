"""Training tasks, with one file per family of tasks."""
