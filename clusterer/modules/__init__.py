"""Modules on top of the public API, like any user's own."""
