"""Analyses for notebooks: pure functions of a loaded model, a run or its data, returning NumPy."""
