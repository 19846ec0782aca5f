"""Plans to weights: streaming over tensors, and the values of each."""
