"""Weights of other projects: one family per file (its names, its constructor's arguments), and one engine that renames."""
