"""`--plugin`: parts of the user's own, which register themselves when their module is imported."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from pathlib import Path

from lodestar.config import Problem, first_line


def load_plugin(name: str) -> None:
    """Import a module by its name, also from the current folder, or a .py file. Raises Problem if missing or failing."""
    try:
        if not name.endswith(".py"):
            if os.getcwd() not in sys.path:
                sys.path.append(os.getcwd())
            importlib.import_module(name)
            return
        called = f"lodestar_plugin_{Path(name).stem}"  # so that a file called torch.py hides nothing
        spec = importlib.util.spec_from_file_location(called, name)
        assert spec is not None and spec.loader is not None, "as for every .py file"
        # Before it runs: configurations look their annotations up there.
        sys.modules[called] = module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    except Problem as problem:
        raise Problem(f"--plugin {name}: {problem}") from None
    except SystemExit as end:
        raise Problem(f"--plugin {name}: SystemExit: {end}") from end
    except Exception as error:  # whatever a user's code raises
        raise Problem(f"--plugin {name}: {type(error).__name__}: {first_line(error)}") from error
