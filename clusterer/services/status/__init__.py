"""The present status of nodes, traffic and processes, for list, live, metrics and doctor."""
