"""Measuring: features, statistics of them, and numbers from those."""
