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
    from lodestar.progress import progress

    began = time.perf_counter()
    with progress("sampling", count()) as done:
        path = demo((out or Path("out")) / "demo.png", steps=steps, seed=seed, done=done)
    print(f"{path}  ({count()} pictures in {time.perf_counter() - began:.0f} s)")
