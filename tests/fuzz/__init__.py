"""Damaged files and absurd requests, each a function of its number, brought to the doors that a user has."""
