"""The merge methods, one pure kernel a file. Importing this package registers them all."""

from merging.methods import linear, slerp, task_arithmetic

__all__ = ["linear", "slerp", "task_arithmetic"]
