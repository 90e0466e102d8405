#!/usr/bin/env bash
# diffusers 0.42.1 (torch 2.13.0): a scheduler_config.json of 2022 with "predict_epsilon": false, then a setting of DDPMScheduler.
#
# One expects: an older folder loads as what it was (the library converts old names of attention weights on loading), or is refused.
# What happens: the setting is dropped with a line in the log, and prediction_type has its default, "epsilon": a network that predicts the picture is
# sampled as one that predicts noise. No error; the step from the same output is another one than with prediction_type="sample".
# Who is hurt: whoever loads a folder of 2022 whose network was trained to predict x₀: pictures are noise, and nothing says why.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet diffusers==0.42.1 torch==2.13.0 numpy==2.4.6
FOLDER="$folder" "$folder/venv/bin/python" - <<'PYTHON'
import json
import os
import warnings
from pathlib import Path

warnings.simplefilter("ignore")
import diffusers
import torch

print("diffusers", diffusers.__version__)
path = Path(os.environ["FOLDER"]) / "scheduler"
path.mkdir()
old = {"_class_name": "DDPMScheduler", "_diffusers_version": "0.4.0", "num_train_timesteps": 1000, "predict_epsilon": False}
(path / "scheduler_config.json").write_text(json.dumps(old))
scheduler = diffusers.DDPMScheduler.from_pretrained(path)
meant = diffusers.DDPMScheduler(prediction_type="sample")
x, output = torch.ones(1, 3, 2, 2), torch.full((1, 3, 2, 2), 0.5)
steps = [each.step(output, 500, x).pred_original_sample.mean().item() for each in (scheduler, meant)]
print(f"prediction_type {scheduler.config.prediction_type!r}; x0 of an output of 0.5: {steps[0]:.3f}, meant {steps[1]:.3f}")
raise SystemExit(0 if scheduler.config.prediction_type == "epsilon" and steps[0] != steps[1] else 1)
PYTHON
