"""The pages of the console: one module each, which exports ``PAGE`` or ``PAGES``."""
