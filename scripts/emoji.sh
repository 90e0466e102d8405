#!/bin/sh
# Trains the parts of emoji and embeds them. A run that was interrupted goes on. The CLIP is embedded first: the model names the 16-bit
# file's SHA-256, and works with no other.
#
#     DATA=emoji-styles.parquet HARDWARE="one CPU core" sh scripts/emoji.sh
#
# PYTHON is the interpreter, RUNS the folder of the runs, SETTINGS further settings of all runs (train.images=2000 …), for a trial.
set -e
PYTHON="${PYTHON:-.venv/bin/python}"
RUNS="${RUNS:-runs/emoji}"
: "${DATA:?names the parquet of captioned emoji}"
: "${HARDWARE:?names the processor, for the cards}"
PICTURES="$DATA@train,style!=openmoji"

NOTE="Drawings: Noto emoji (Copyright 2013 Google LLC, Apache 2.0 and SIL OFL 1.1), Twemoji (Twitter and contributors, CC BY 4.0), \
Fluent emoji (Microsoft, MIT), flattened on white and made smaller; names: Unicode CLDR 48 (Unicode-3.0). CC BY asks whoever passes on \
pictures that show Twemoji's drawings to name their authors."

train() {
    "$PYTHON" -m lodestar train --data "$PICTURES" "$@" $SETTINGS
}

embed() {
    "$PYTHON" scripts/embed.py "$@" --data "noto-emoji, twemoji, fluent-emoji-flat" --hardware "$HARDWARE" --note "$NOTE"
}

train emoji.clip --out "$RUNS/clip"
embed "$RUNS/clip" emoji_clip --preset emoji.clip

train emoji.text --init dalle2_shapes --out "$RUNS/all" task.clip=emoji_clip
# Three of five drawings are people, most of them one figure in six colours of skin: all else is given more time.
train emoji.text --init "$RUNS/all" --data "$PICTURES,group!=People & Body" --out "$RUNS/text" task.clip=emoji_clip train.images=42000 \
    train.optimizer.warmup_images=1500
train emoji.up2 --init dalle2_shapes_up2 --out "$RUNS/up2"

embed "$RUNS/up2" emoji_up2 --preset emoji.up2 --before dalle2_shapes_up2 --ranges "$PICTURES"
embed "$RUNS/text" emoji --preset emoji.text --before dalle2_shapes --before "$RUNS/all" --ranges "$PICTURES" --part clip=emoji_clip --part upsampler=emoji_up2
