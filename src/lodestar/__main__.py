"""The command line's way in: whatever the user can mend becomes one line and exit status 2."""

from __future__ import annotations

import io
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any

_TOO_LITTLE = "there is not enough memory for this: use a smaller --batch-size, smaller pictures or a smaller model"
_LONGEST = 4_000
"""Characters of a line."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command and exit."""
    from typer.exceptions import Abort, Exit, TyperException

    from lodestar.cli import app
    from lodestar.config import Problem

    try:
        given = list(sys.argv[1:] if arguments is None else arguments)
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="surrogateescape")  # paths go out as they are, also those that are no UTF-8
        with warnings.catch_warnings():
            warnings.showwarning = _shown(warnings.showwarning)
            status = app(given or ["--help"], standalone_mode=False)
    except Problem as problem:
        from lodestar.files import spelled

        _fail(spelled(problem))
    except TyperException as error:
        _fail(_usage(error))
    except Exit as exit_:
        sys.exit(exit_.exit_code)
    except (KeyboardInterrupt, Abort):
        print("lodestar: interrupted", file=sys.stderr)
        sys.exit(130)
    except OSError as error:
        _fail(f"{error.filename or 'input or output'}: {error.strerror or error}")
    except MemoryError:
        _fail(_TOO_LITTLE)
    except RuntimeError as error:
        # torch is not imported for its sake: where it ran out of memory, it is there.
        if type(error).__name__ == "OutOfMemoryError":
            _fail("the GPU ran out of memory: use a smaller --batch-size")
        if "allocate memory" not in str(error):
            raise
        _fail(_TOO_LITTLE)
    sys.exit(status if isinstance(status, int) else 0)


def _usage(error: Any) -> str:
    """What is wrong with the words of a command; of an option that is one of its arguments, where that stands."""
    name = getattr(error, "option_name", "").removeprefix("--")
    context = getattr(error, "ctx", None)
    if context is not None and name in {each.name for each in context.command.params if each.param_type_name == "argument"}:
        return f"--{name} is no option, it goes without its name: {context.get_usage().removeprefix('Usage: ')}"
    return str(error.format_message())


def _shown(others: Callable[..., None]) -> Callable[..., None]:
    """The display of warnings: our notes in one line, all others by `others`."""
    from lodestar.config import Note

    def show(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
        if issubclass(category, Note):
            print(f"lodestar: note: {message}", file=sys.stderr)
        else:
            others(message, category, *where, **more)

    return show


def _fail(message: str) -> None:
    line = " ".join(message.split())
    if len(line) > _LONGEST:  # what was given may be a megabyte: what is wrong with it stands before it or after it
        line = f"{line[: _LONGEST // 2]} … {line[-_LONGEST // 2 :]}"
    print(f"lodestar: {line}", file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    main()
