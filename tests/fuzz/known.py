"""Kinds that are known to fail, and are not told of until they are mended."""

KNOWN: frozenset[str] = frozenset()
