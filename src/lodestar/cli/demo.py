"""`demo`: what guidance does, in one picture."""

from __future__ import annotations

from pathlib import Path

from lodestar.cli.options import Out, Seed, Steps


def demo(
    out: Out = Path("out"),
    steps: Steps = None,
    seed: Seed = 0,
) -> None:
    """Draw one picture of what guidance does, from the embedded model."""
    import time

    from lodestar.demo import count, demo
    from lodestar.files import check_writable, spelled
    from lodestar.progress import progress

    began, path = time.perf_counter(), (out or Path("out")) / "demo.png"
    check_writable(path)
    with progress("sampling", count()) as done:
        demo(path, steps=steps, seed=seed, done=done)
    print(f"{spelled(path)}  ({count()} pictures in {time.perf_counter() - began:.0f} s)")
