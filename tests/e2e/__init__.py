"""Stories told with real processes, as a user runs them."""
