#!/usr/bin/env bash
# torch 2.13.0 (CPU, gloo): torch.distributed.nn.functional.
#
# One expects: destroy_process_group ends the group, its threads among it, whatever was imported in between.
# What happens: functions of torch.distributed.nn have the default `group=group.WORLD`, which is evaluated when the module is imported: before
# init_process_group it is None, afterwards it is the group itself, which lives in those defaults from then on. Nobody need name the module: the first
# optimizer of a training imports it (through torch._dynamo). destroy_process_group then leaves the group's three threads running, and they meet the end
# of the interpreter: on a busy machine a training that had ended well and was saved ended with SIGABRT ("terminate called without an active exception")
# in one of some dozens of runs, which torchrun reports as failed, and restarts.
# Who is hurt: whoever calls init_process_group before the first optimizer, as most trainings do. Importing torch.distributed.nn.functional first is enough.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6
cat > "$folder/threads.py" <<'PYTHON'
import sys
from pathlib import Path

import torch
import torch.distributed as dist

if "before" in sys.argv:
    import torch.distributed.nn.functional
dist.init_process_group("gloo", init_method=f"file://{sys.argv[1]}", rank=0, world_size=1)
layer = torch.nn.Linear(2, 2)
torch.optim.AdamW(layer.parameters())
dist.destroy_process_group()
print(sum("gloo" in thread.read_text() for thread in Path("/proc/self/task").glob("*/comm")))
PYTHON
late=$("$folder/venv/bin/python" "$folder/threads.py" "$folder/store1" late 2> "$folder/told")
early=$("$folder/venv/bin/python" "$folder/threads.py" "$folder/store2" before 2>> "$folder/told")
echo "threads of the group after its end: $late if an optimizer was the first to import torch.distributed.nn, $early if it was imported before the group"
[ "$late" = 3 ] && [ "$early" = 0 ]
