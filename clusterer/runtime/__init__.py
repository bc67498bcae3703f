"""What every process stands on: locks that survive forks, log lines, loops that go on."""
