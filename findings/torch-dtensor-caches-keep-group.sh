#!/usr/bin/env bash
# torch 2.13.0 (CPU, gloo): torch.distributed.tensor, and with it FSDP2 (fully_shard).
#
# One expects: when all modules, DTensors and the device mesh are gone, destroy_process_group ends the group, its threads and connections among it.
# What happens: DTensor's operations are planned once and the plans are kept in half a dozen caches for the whole process (of sharding propagation in C++ and
# Python, of meta-tensors, of redistributions, of a mesh's topology). All of them hold the mesh, also the cache of planners, whose key is a weak reference
# to the mesh, since the planner that is its value holds it strongly. And the mesh holds the group, in a registry that torch.compile alone reads; everything
# else finds the group by name. So a few operations on one DTensor keep the group's three threads to the end of the process. They meet that of the
# interpreter, which is aborted at times ("terminate called without an active exception"): a training that ended well and was saved is one that failed
# for torchrun, and is started again.
# Who is hurt: whoever trains with FSDP2 or DTensor on gloo; and processes that live longer than their group, whose connections stay open.
# Emptying the mesh's registry when it is made (mesh._pg_registry.clear()) lets the group end with the modules.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6
cat > "$folder/threads.py" <<'PYTHON'
import gc
import sys
from pathlib import Path

import torch
import torch.distributed as dist
import torch.distributed.nn.functional  # before the group, which it would keep too: another finding
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard


def train() -> None:
    mesh = init_device_mesh("cpu", (1,))
    if "emptied" in sys.argv:
        mesh._pg_registry.clear()
    layer = fully_shard(torch.nn.Linear(4, 4), mesh=mesh)
    optimizer = torch.optim.AdamW(layer.parameters())
    for _ in range(2):
        layer(torch.ones(2, 4)).sum().backward()
        torch.nn.utils.clip_grad_norm_(layer.parameters(), 1.0)
        optimizer.step()


dist.init_process_group("gloo", init_method=f"file://{sys.argv[1]}", rank=0, world_size=1)
train()
gc.collect()  # modules of FSDP are in cycles
dist.destroy_process_group()
print(sum("gloo" in thread.read_text() for thread in Path("/proc/self/task").glob("*/comm")))
PYTHON
kept=$("$folder/venv/bin/python" "$folder/threads.py" "$folder/kept" 2> "$folder/told")
emptied=$("$folder/venv/bin/python" "$folder/threads.py" "$folder/emptied" emptied 2>> "$folder/told")
echo "threads of the group after its end: $kept, though nothing is left but caches; with the mesh's registry emptied: $emptied"
[ "$kept" = 3 ] && [ "$emptied" = 0 ]
