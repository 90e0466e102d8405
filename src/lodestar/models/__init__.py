"""Whole models with a name, one kind a file."""
