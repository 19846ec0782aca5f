"""Work that outlives the server: a table of jobs, and a supervisor that starts and watches their processes."""
