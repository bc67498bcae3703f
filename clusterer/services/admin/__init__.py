"""What operators' commands do to nodes and with packets."""
