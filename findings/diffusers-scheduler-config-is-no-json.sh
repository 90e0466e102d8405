#!/usr/bin/env bash
# diffusers 0.42.1 (torch 2.13.0): scheduler_config.json of DPMSolverMultistepScheduler and DPMSolverSinglestepScheduler.
#
# One expects: a file named .json, written by save_config with default settings, is JSON, which programs in any language read.
# What happens: the default of lambda_min_clipped is the float −∞, and Python's json writes it as the bare word -Infinity, which RFC 8259 has not.
# Python reads it back; strict readers (orjson here; RFC 8259 readers of other languages likewise) refuse the whole file.
# Who is hurt: ports of pipelines to JavaScript, Rust, Swift or C++, and tools that validate model folders: the most used solver's file is the one that fails.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet diffusers==0.42.1 torch==2.13.0 numpy==2.4.6 orjson==3.11.4
FOLDER="$folder" "$folder/venv/bin/python" - <<'PYTHON'
import os
import warnings
from pathlib import Path

warnings.simplefilter("ignore")
import diffusers
import orjson

diffusers.utils.logging.set_verbosity_error()
print("diffusers", diffusers.__version__)
changed = False
for name, refused in (("DDPMScheduler", False), ("DPMSolverMultistepScheduler", True), ("DPMSolverSinglestepScheduler", True)):
    folder = Path(os.environ["FOLDER"]) / name
    getattr(diffusers, name)().save_config(folder)
    text = (folder / "scheduler_config.json").read_text()
    line = next((line.strip() for line in text.splitlines() if "Infinity" in line), "no such word")
    try:
        orjson.loads(text)
        what = "read"
    except orjson.JSONDecodeError as error:
        what = f"refused ({error})"
    print(f"{name}: {line}; a strict reader: {what}")
    changed |= what.startswith("refused") != refused
raise SystemExit(1 if changed else 0)
PYTHON
