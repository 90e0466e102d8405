"""Earlier import paths of packages, whose names are functions now.

``lodestar.evaluate.metrics`` is ``lodestar.evaluation.metrics``.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

MOVED = {"train": "training", "evaluate": "evaluation", "convert": "conversion"}
"""Earlier names in the package, and those of today."""


class _Earlier(MetaPathFinder, Loader):
    """Finds the modules of today under their earlier names: the same objects, not a second copy."""

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> ModuleSpec | None:
        package, _, rest = name.partition(".")
        first, dot, inner = rest.partition(".")
        if package != "lodestar" or first not in MOVED:
            return None
        return ModuleSpec(name, self, loader_state=f"lodestar.{MOVED[first]}{dot}{inner}")

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = importlib.import_module(spec.loader_state)
        spec.loader_state = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        spec = module.__spec__
        assert spec is not None
        module.__spec__ = spec.loader_state  # the import system has put the earlier name's in its place


class _Package(ModuleType):
    """The package, in which an import of an earlier name does not hide the function of that name."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in MOVED and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


def keep_earlier_names() -> None:
    """Make the earlier import paths work."""
    sys.meta_path.insert(0, _Earlier())
    sys.modules["lodestar"].__class__ = _Package
