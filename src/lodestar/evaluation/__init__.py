"""Measuring pictures: features, statistics of features, and metrics."""
