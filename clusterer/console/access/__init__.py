"""Access to the console: users, sessions, tokens, and the checks of every request."""
