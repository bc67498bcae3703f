"""Redis and the provisioning table kept in step."""
