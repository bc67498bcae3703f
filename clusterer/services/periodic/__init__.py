"""The work of the scheduled jobs."""
