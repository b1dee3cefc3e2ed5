"""What notebooks plot: pure functions over a loaded model, a run or its data; numpy out."""
