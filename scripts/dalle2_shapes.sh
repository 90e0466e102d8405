#!/bin/sh
# Trains the parts of dalle2_shapes and embeds them, in an order in which each finds what it needs. A run that was interrupted
# goes on; lines may also be copied and run one by one, those between two embeddings at the same time.
#
#     HARDWARE="one CPU core" sh scripts/dalle2_shapes.sh
#
# PYTHON is the interpreter, RUNS the folder of the runs, SETTINGS further settings of all runs (train.images=2000 …), for a trial.
# The CLIP is embedded first: priors and decoder name the 16-bit file's SHA-256, and work with no other.
set -e
PYTHON="${PYTHON:-.venv/bin/python}"
RUNS="${RUNS:-runs/dalle2_shapes}"
: "${HARDWARE:?names the processor, for the cards}"

train() {
    "$PYTHON" -m lodestar train "$@" $SETTINGS
}

embed() {
    "$PYTHON" scripts/embed.py "$@" --data shapes --hardware "$HARDWARE"
}

train shapes.clip --out "$RUNS/clip"
embed "$RUNS/clip" dalle2_shapes_clip --preset shapes.clip

train shapes.prior --out "$RUNS/prior" task.clip=dalle2_shapes_clip
train shapes.prior_ar --out "$RUNS/prior_ar" task.clip=dalle2_shapes_clip
train shapes.decoder --init shapes --out "$RUNS/decoder" task.clip=dalle2_shapes_clip
train shapes.up2 --out "$RUNS/up2"

embed "$RUNS/prior" dalle2_shapes_prior --preset shapes.prior
embed "$RUNS/prior_ar" dalle2_shapes_prior_ar --preset shapes.prior_ar
embed "$RUNS/up2" dalle2_shapes_up2 --preset shapes.up2 --ranges shapes
embed "$RUNS/decoder" dalle2_shapes --preset shapes.decoder --before shapes --ranges shapes \
    --part clip=dalle2_shapes_clip --part prior=dalle2_shapes_prior --part prior_ar=dalle2_shapes_prior_ar \
    --part upsampler=dalle2_shapes_up2
