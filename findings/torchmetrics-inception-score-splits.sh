#!/bin/sh
# torchmetrics 1.8.2 with torch 2.13.0: torchmetrics.image.inception.InceptionScore(splits=10).
# Expected: the score of given pictures, over 10 splits that are alike in size, and the same number whenever it is computed.
# Happens: the pictures are cut into pieces of ceil(N / 10). Of 91 pictures the tenth piece is one picture, whose score is 1 by
# definition and counts like the others; of 51 there are nine pieces and of 21 seven, though `splits` is 10. The order is drawn anew,
# by torch's global generator, at each computation, so that the same state gives other numbers in each process or after a reset.
# Hurt: who compares small sets of pictures (validation during training) whose number is no multiple of ten: one picture more lowers
# the score by about a tenth of what it is above 1, below from 2.71 to 2.57.
set -e
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 torchmetrics==1.8.2 numpy==2.4.1
cat > "$folder/look.py" <<'PY'
import sys
import warnings

import torch
import torchmetrics
from torchmetrics.image.inception import InceptionScore

warnings.filterwarnings("ignore")
print("torchmetrics", torchmetrics.__version__, "torch", torch.__version__)


class Sure(torch.nn.Module):
    """Logits of a classifier that is sure of the class, which is the picture's first value."""

    def forward(self, pictures):
        return 20.0 * torch.nn.functional.one_hot(pictures[:, 0, 0, 0].long(), 3).float()


def metric(count):
    made = InceptionScore(feature=Sure(), splits=10)
    classes = torch.arange(count) % 3
    made.update(classes.to(torch.uint8)[:, None, None, None].expand(-1, 3, 8, 8))
    return made


def score(count, seed=0):
    torch.manual_seed(seed)
    return float(metric(count).compute()[0])


pieces = {count: [len(each) for each in torch.arange(count).chunk(10)] for count in (90, 91, 51, 21)}
for count, sizes in pieces.items():
    print(f"{count} pictures: sizes of the splits {sizes}; mean score over 20 orders", end=" ")
    print(f"{sum(score(count, seed) for seed in range(20)) / 20:.3f}")
numbers = [round(score(90, seed), 4) for seed in range(3)]
print("the same 90 pictures under three states of the global generator:", numbers)
drop = sum(score(90, seed) - score(91, seed) for seed in range(20)) / 20
print(f"one picture more lowers the score by {drop:.3f} on average")
same = pieces[91][-1] == 1 and len(pieces[51]) == 9 and len(pieces[21]) == 7 and len(set(numbers)) == 3 and 0.05 < drop < 0.4
print("as described" if same else "it has changed")
sys.exit(0 if same else 1)
PY
"$folder/venv/bin/python" "$folder/look.py"
