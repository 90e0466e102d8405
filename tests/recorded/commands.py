"""What was recorded: command lines, run in one folder in this order, and what of their results is kept.

``LODESTAR_PRECISION=float32 python -m tests.recorded.commands FOLDER`` runs them and writes the record anew. Losses and weights
are of commit 018cc06, from before the house was rebuilt, so that nothing of the rebuilding may change one. So were pictures, and
are now of the commit that replaced the embedded model; manifests are of 018cc06's form.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

HERE = Path(__file__).parent
RECORD = HERE / "record.safetensors"
NUMBERS = HERE / "numbers.json"
MANIFESTS = HERE / "manifests"

_GUIDED = {
    "plain": "",
    "cfg": "--guidance cfg:3 --sampler ddim:eta=0.5 --label dog=1 --label ship=1",
    "rescaled": "--guidance cfg:3,rescale=0.7 --guidance interval:0.3,50 --sampler heun",
    "cfgpp": "--guidance cfgpp:0.6 --sampler ddim",
    "apg": "--guidance apg:4 --sampler unipc",
    "auto": "--guidance autoguidance:1.5 --sampler euler_ancestral",
    "pag": "--guidance pag:1,up --sampler lms",
    "sag": "--guidance sag:0.5 --sampler edm",
    "classifier": "--guidance classifier:3 --sampler ancestral",
    "score": "--guidance cfg:2 --guidance clamp --guidance classifier:1,score --sampler ddim",
    "clean": "--guidance classifier:2,sees=clean --sampler dpmpp:eta=1",
    "threshold": "--guidance cfg:5 --guidance threshold:0.99 --sampler plms",
    "composed": "--label dog+ship --label not&cat --guidance cfg:2 --sampler dpmpp_sde",
    "none": "--label none --no-clamp --sampler dpmpp_single --temperature 0.9",
    "corrected": "--sampler predictor_corrector",
    "best": "--best-of 2 --label dog --label cat",
}
_EDITS = {
    "sdedit": "sdedit cifar10 plain/00000.png --label cat --strength 0.6 --guidance cfg:2",
    "invert": "invert cifar10 plain/00000.png plain/00001.png --from dog --label cat",
    "pictures": "interpolate cifar10 plain/00000.png plain/00001.png --from dog --to cat --points 3",
    "labels": "interpolate cifar10 --from dog --to cat --seed 2 --to-seed 9 --points 3 --guidance cfg:2",
    "inpaint": "inpaint cifar10 plain/00000.png --mask mask.png --label dog --resamples 2 --jump 2",
}
_OTHERS = {
    "sweep": "sweep cifar10 --guidance cfg --over scale=1,3 --over steps=2,3 --count 20 --batch-size 10 --out sweep",
    "evaluate": "evaluate cifar10 --count 20 --steps 2 --batch-size 10 --out evaluate",
    "export": "export cifar10 --to diffusers export",
    "convert": "convert export --out convert",
}
_SMALL = "task.model.{}network.width=16 train.images=256 train.batch_size=64 train.precision=float32 train.log_every=64"
_RUNS = {
    "denoise": "digits",
    "memory": 'digits task.levels={"kind":"loss_second_moment","history":1} task.objective={"kind":"bound","rescaled":true}',
    "edm": 'digits task.model.denoiser.prediction={"kind":"edm"} task.model.denoiser.variance=fixed'
    ' task.model.denoiser.network.out_channels=1 task.objective={"kind":"simple"} task.levels={"kind":"log_normal"}',
    "huber": 'digits task.model.denoiser.prediction={"kind":"x0"} task.objective={"kind":"huber","weighting":{"kind":"min_snr"}}'
    " task.model.denoiser.variance=fixed task.model.denoiser.network.out_channels=1 task.conditional=false",
    "classify": "digits_classifier",
}


def commands() -> Iterator[tuple[str, list[str]]]:
    """Names and arguments; each writes into a folder of its name."""
    for name, options in _GUIDED.items():
        count = "" if "--label" in options else "--count 2"
        words = f"sample cifar10 {options} {count} --steps 4 --seed 3 --out {name}".split()
        yield name, [word.replace("&", " ") for word in words]
    for name, options in _EDITS.items():
        yield name, f"edit {options} --steps 4 --out {name}".split()
    for name, options in _RUNS.items():
        small = _SMALL.format("" if name == "classify" else "denoiser.")
        yield name, f"train {options} {small} --out {name}".split()
    for name, line in _OTHERS.items():
        yield name, line.split()


def prepare(folder: Path) -> None:
    """What the commands find in their folder."""
    mask = Image.new("L", (32, 32), 0)
    mask.paste(255, (8, 8, 24, 24))
    mask.save(folder / "mask.png")


def results(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Pictures, weights and statistics as tensors; losses and numbers as JSON."""
    tensors: dict[str, Tensor] = {}
    numbers: dict[str, Any] = {}
    for name in [*_GUIDED, *_EDITS]:
        pictures = [np.asarray(Image.open(path)) for path in sorted((folder / name).glob("0*.png"))]
        tensors[f"pictures/{name}"] = torch.from_numpy(np.stack(pictures))
    for name in _RUNS:
        lines = [json.loads(line) for line in (folder / name / "log.jsonl").read_text().splitlines()]
        kept = [{key: value for key, value in line.items() if key not in ("time", "images_per_second")} for line in lines]
        numbers[f"log/{name}"] = kept
        weights = load_file(folder / name / "model.safetensors")
        numbers[f"weights/{name}"] = {key: value.double().square().mean().sqrt().item() for key, value in weights.items()}
    with (folder / "sweep" / "sweep.csv").open() as file:
        rows = list(csv.DictReader(file))
    numbers["sweep"] = [{key: float(row[key]) for key in ("frechet", "precision", "recall")} for row in rows]
    numbers["evaluate"] = {
        key: value
        for key, value in json.loads((folder / "evaluate" / "report.json").read_text())["numbers"].items()
        # Other numbers since their splits and subsets are drawn from the pictures in an order of their own.
        if not key.startswith(("score", "kid"))
    }
    (converted,) = (folder / "convert").glob("*.safetensors")
    numbers["convert"] = fingerprint(converted)
    return tensors, numbers


def fingerprint(path: Path) -> str:
    """SHA-256 of a file's tensors, by their names."""
    known = hashlib.sha256()
    for name, value in sorted(load_file(path).items()):
        known.update(name.encode() + str(tuple(value.shape)).encode() + value.contiguous().numpy().tobytes())
    return known.hexdigest()


def run(folder: Path) -> None:
    """All the commands, in a folder."""
    from lodestar.__main__ import main

    prepare(folder)
    os.chdir(folder)
    for name, arguments in commands():
        try:
            main(arguments)
        except SystemExit as stop:
            assert not stop.code, (name, arguments)
        print(name, file=sys.stderr)


if __name__ == "__main__":
    torch.set_num_threads(1)
    target = Path(sys.argv[1]).resolve()
    target.mkdir(parents=True, exist_ok=True)
    run(target)
    tensors, numbers = results(target)
    save_file(tensors, RECORD)
    kept = {key: value for key, value in json.loads(NUMBERS.read_text()).items() if key.startswith(("log/", "weights/"))}
    NUMBERS.write_text(json.dumps(numbers | kept, indent=1) + "\n")
    for path in MANIFESTS.glob("*.json"):
        old, new = json.loads(path.read_text()), json.loads((target / path.stem / "manifest.json").read_text())
        old["manifest"]["model_digest"] = new["manifest"]["model_digest"]
        if "pictures" in old["manifest"]["request"]:
            old["manifest"]["request"]["pictures"] = new["manifest"]["request"]["pictures"]
        path.write_text(json.dumps(old, indent=1))
