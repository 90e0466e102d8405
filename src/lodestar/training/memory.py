"""Memory of a device: its size, this process's share, and the peak of a call."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import re
import sys
from collections.abc import Callable
from itertools import accumulate
from pathlib import Path

import torch

HEAP = 1.3
"""Memory of a CPU's process for each byte of a call's tensors, where the system does not tell it: the C library's heap has holes,
of up to so much where tensors are below 32 MiB."""
_STATUS, _REFS = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def whole(device: torch.device) -> int:
    """Bytes of the device; of the machine, or of the group of processes that the system limits, for a CPU."""
    if device.type == "cuda":
        size: int = torch.cuda.mem_get_info(device)[1]
        return size
    size, limit = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), Path("/sys/fs/cgroup/memory.max")
    told = limit.read_text().strip() if limit.exists() else ""
    return min(size, int(told)) if told.isdecimal() else size


def held(device: torch.device) -> int:
    """Bytes of the device that are taken; on GPUs by others too."""
    if device.type == "cuda":
        free, size = torch.cuda.mem_get_info(device)
        return size - free
    if sys.platform == "linux":
        gc.collect()
        _began()
        return _resident("VmRSS")
    import resource  # not on Windows

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 2**10)


def beside(call: Callable[[], object], device: torch.device) -> int:
    """The peak of a call in bytes, beside the memory before the call.

    On CPUs all of the process's, scratch space of libraries too, if the system tells the peak; else those of tensors.
    """
    if device.type == "cuda":
        before: int = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        call()
        peak: int = torch.cuda.max_memory_allocated(device)
        return peak - before
    gc.collect()  # of earlier calls, whose end would count here
    if not _began():
        return int(HEAP * _live(call))
    before = _resident("VmHWM")
    call()
    return _resident("VmHWM") - before


def _began() -> bool:
    """Give free memory back to the system, and begin its count of the process's peak anew; False where that cannot be done."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is None:
        return False
    trim(0)
    with contextlib.suppress(OSError):
        _REFS.write_text("5")
        return True
    return False


def _resident(name: str) -> int:
    """Bytes of the process that are in memory now ("VmRSS"), or were at the peak ("VmHWM")."""
    found = re.search(rf"^{name}:\s+(\d+) kB$", _STATUS.read_text(), re.MULTILINE)
    assert found is not None, f"Linux tells {name}"
    return int(found[1]) * 2**10


def _live(call: Callable[[], object]) -> int:
    """The most bytes of tensors on the CPU that live at one moment of a call, and did not before it."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler tells of its start and end
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        call()
    assert profile.profiler is not None and profile.profiler.kineto_results is not None
    changes = [each for each in profile.profiler.kineto_results.events() if each.name() == "[memory]"]
    sizes = (int(each.nbytes()) for each in sorted(changes, key=lambda each: each.start_ns()))
    return max(accumulate(sizes, initial=0))
