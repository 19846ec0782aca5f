"""The merge methods, one pure kernel a file, and each file named after its method."""
