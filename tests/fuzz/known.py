"""Kinds of input of which some are known to be met badly; they are made all the same, and not told of until they are mended."""

KNOWN: dict[str, str] = {
    "packed pictures": "readers raise what a damaged archive makes them meet; what is begun stays when it is refused",
    "picture": "a damaged Parquet file makes pyarrow ask for more memory than there is",
    "picture folder": "a pipe in it waits for ever",
    "archive": "encrypted members, strange packing, and what is told of labels raise",
    "arrays": "absurd headers raise, or are given memory",
    "unpacking": "members are unpacked whole, however large",
    "table": "the description of the columns may be of any type",
}
"""By kind, with what is wrong."""
