"""Private servers, child processes and receivers that tests use."""
