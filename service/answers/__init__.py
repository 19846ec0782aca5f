"""What commands, routes and pages show: arguments in, one documented object out; nothing is printed."""
