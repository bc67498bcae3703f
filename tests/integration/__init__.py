"""Tests against a real Redis, a real MariaDB and real sockets."""
