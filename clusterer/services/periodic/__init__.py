"""The services behind the periodic jobs."""
