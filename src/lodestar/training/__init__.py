"""The training loop, with averages, state and log."""
