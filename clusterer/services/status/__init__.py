"""What nodes, traffic and processes are like now; list, live, metrics and doctor read it."""
