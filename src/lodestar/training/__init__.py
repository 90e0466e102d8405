"""One training loop, and what it needs: averages, state, log."""
