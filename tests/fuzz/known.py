"""Kinds of input of which some are known to be met badly; they are made all the same, and not told of until they are mended."""

KNOWN: dict[str, str] = {
    "run folder": "a log that is no UTF-8, a run.json that is a pipe; what is begun stays when it is refused",
    "sample in Python": "arguments of another type, and any count, are used before they are looked at",
    "edit in Python": "likewise",
    "packed pictures": "readers raise what a damaged archive makes them meet; what is begun stays when it is refused",
    "picture": "a damaged Parquet file makes pyarrow ask for more memory than there is",
    "picture folder": "a pipe in it waits for ever",
    "archive": "encrypted members, strange packing, and what is told of labels raise",
    "arrays": "absurd headers raise, or are given memory",
    "unpacking": "members are unpacked whole, however large",
    "table": "the description of the columns may be of any type",
    "torch state": "tensors that are views of less than they claim are written out",
}
"""By kind, with what is wrong."""
