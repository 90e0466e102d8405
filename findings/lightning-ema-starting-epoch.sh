#!/usr/bin/env bash
# lightning 2.6.6 (torch 2.13.0): EMAWeightAveraging(update_starting_at_epoch=…).
#
# One expects: an average that starts at that epoch, as update_starting_at_step makes one that starts at a step: what training does before, when the weights
# move most, is left out. (The class has no words on either; a thread on update_starting_at_step takes both for ways to delay the start.)
# What happens: it delays nothing. The average follows every step from the first, exactly as without the setting, and from the epoch on is moved once *more*
# at each epoch's end, toward weights that the last step has given it already. Only update_every_n_steps=0 silences the steps, and then it moves once an
# epoch. No error and no warning; the number of updates is nowhere logged.
# Who is hurt: whoever trains with a slow decay and lets the average wait: of 0.9995 and a start after 3,000 of 4,000 steps, 61 % of
# what is validated, sampled and saved are weights of steps that were to be left out, and 14 % those of the very first.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6 lightning==2.6.6
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import importlib.metadata
import logging
import warnings

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, EMAWeightAveraging

warnings.simplefilter("ignore")
logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
STEPS, EPOCHS, START, DECAY = 1_000, 4, 3, 0.9995


class Counting(LightningModule):
    """Its first weight is the number of steps done, its second 1 during the epochs before the start."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(2))
        self.automatic_optimization = False

    def training_step(self, batch, number):
        optimizer = self.optimizers()
        optimizer.zero_grad()
        early = float(self.current_epoch < START)
        self.weight.grad = -torch.stack((torch.ones(()), early - self.weight.detach()[1]))
        optimizer.step()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=1.0)


class Watch(Callback):
    """Number of updates of the average at the end of each epoch."""

    def __init__(self, average):
        self.average, self.counts = average, []

    def on_train_epoch_start(self, trainer, module):
        if trainer.current_epoch:
            self.counts.append(int(self.average._average_model.n_averaged))


def run(**settings):
    torch.manual_seed(0)
    average = EMAWeightAveraging(decay=DECAY, **settings)
    watch = Watch(average)
    data = torch.utils.data.DataLoader(torch.zeros(STEPS, 1), batch_size=1)
    trainer = Trainer(
        max_epochs=EPOCHS, accelerator="cpu", devices=1, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, callbacks=[average, watch],
    )
    model = Counting()
    trainer.fit(model, data)
    counts = [*watch.counts, int(average._average_model.n_averaged)]
    print(f"{settings}: updates after each epoch {counts}, the average is of step {model.weight[0].item():.0f}, early {model.weight[1].item():.3f}")
    return counts, model.weight[1].item()


print("lightning", importlib.metadata.version("lightning"), "torch", torch.__version__)
plain = run()
step = run(update_starting_at_step=START * STEPS)
epoch = run(update_starting_at_epoch=START)
waits = step[0] == [0, 0, 0, 1_000] and step[1] == 0
as_without = epoch[0] == [1_000, 2_000, 3_000, 4_001] and abs(epoch[1] - plain[1]) < 0.001 and plain[0] == [1_000, 2_000, 3_000, 4_000]
print("by step it waits:", waits, "| by epoch it does not:", as_without)
raise SystemExit(0 if waits and as_without and epoch[1] > 0.6 else 1)
PYTHON
