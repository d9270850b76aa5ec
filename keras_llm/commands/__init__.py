"""One module per verb: its flags and its `main`."""
