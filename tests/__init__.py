"""All tests: unit (no servers), integration (real servers and sockets), e2e (real processes)."""
