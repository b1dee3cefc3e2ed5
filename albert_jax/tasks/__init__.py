"""What is learnt: one file a family of tasks."""
