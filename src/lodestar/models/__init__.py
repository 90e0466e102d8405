"""Whole models that a user can name, one a file."""
