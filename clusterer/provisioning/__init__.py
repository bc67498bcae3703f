"""The provisioning database: its URL, its table, and rows read from and written to it."""
