"""The database of a run, which alone holds its state."""
