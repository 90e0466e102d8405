"""Kinds of input of which some are known to be met badly; they are made all the same, and not told of until they are mended."""

KNOWN: dict[str, str] = {
    "run folder": "a log that is no UTF-8, a run.json that is a pipe; what is begun stays when it is refused",
    "sample in Python": "arguments of another type, and any count, are used before they are looked at",
    "edit in Python": "likewise",
    "torch state": "tensors that are views of less than they claim are written out",
}
"""By kind, with what is wrong."""
