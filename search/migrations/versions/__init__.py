"""One step a version, named by it. What they need of the program is copied here: it must not change with it."""
