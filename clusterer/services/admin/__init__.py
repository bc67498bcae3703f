"""The services behind the operators' commands for nodes and packets."""
