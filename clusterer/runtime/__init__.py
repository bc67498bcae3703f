"""The base of every process: locks that survive forks, log lines, loops that survive errors."""
