"""Keep the features of a reference in the package, so that an embedded model can be measured without its data.

python scripts/embed_reference.py cifar10-test.parquet cifar10
"""

from __future__ import annotations

import argparse

from lodestar.data import open_source
from lodestar.evaluate.extractors import load_extractor
from lodestar.evaluate.kept import FOLDER, keep
from lodestar.evaluate.run import source_features


def main() -> None:
    """Read pictures, write their features."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pictures")
    parser.add_argument("name", help="the embedded model that is to be compared with them")
    options = parser.parse_args()
    extractor, source = load_extractor(), open_source(options.pictures)
    path = FOLDER / f"{options.name}.safetensors"
    keep(path, source, source_features(source, extractor), extractor)
    print(f"{path}: {len(source)} pictures, {path.stat().st_size / 2**20:.1f} MiB")


if __name__ == "__main__":
    main()
