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
ELSE="$PICTURES,group!=People & Body"

NOTE="Drawings: Noto emoji (Copyright 2013 Google LLC, Apache 2.0 and SIL OFL 1.1), Twemoji (Twitter and contributors, CC BY 4.0), \
Fluent emoji (Microsoft, MIT), flattened on white and made smaller; names: Unicode CLDR 48 (Unicode-3.0). CC BY asks whoever passes on \
pictures that show Twemoji's drawings to name their authors."

train() {
    "$PYTHON" -m lodestar train --data "$PICTURES" "$@" $SETTINGS
}

phase() {
    begun="$1" out="$2" data="$3" images="$4" rate="$5"
    shift 5
    train emoji.text --init "$RUNS/$begun" --data "$data" --out "$RUNS/$out" task.clip=emoji_clip train.images="$images" \
        train.optimizer.rate="$rate" train.optimizer.warmup_images=1500 "$@"
}

embed() {
    "$PYTHON" scripts/embed.py "$@" --data "noto-emoji, twemoji, fluent-emoji-flat" --hardware "$HARDWARE" --note "$NOTE"
}

train emoji.clip --out "$RUNS/clip"
embed "$RUNS/clip" emoji_clip --preset emoji.clip

train emoji.text --init dalle2_shapes --out "$RUNS/1" task.clip=emoji_clip
# Three of five drawings are people, most of them one figure in six colours of skin: by turns, all else is given more time.
phase 1 2 "$ELSE" 42000 1e-3
phase 2 3 "$PICTURES" 110000 1e-3
phase 3 4 "$ELSE" 110000 7e-4
phase 4 5 "$PICTURES" 90000 4e-4
phase 5 6 "$ELSE" 200000 7e-4
# Which figure it is, is decided in much noise.
phase 6 7 "$ELSE" 170000 6e-4 task.levels.mean=1.5
phase 7 8 "$PICTURES" 110000 4e-4
phase 8 9 "$ELSE" 300000 6e-4 task.levels.mean=1.2
phase 9 10 "$ELSE" 120000 6e-4 task.levels.mean=1.2
phase 10 11 "$PICTURES" 110000 4e-4
# All again makes what shows no people worse, which alone makes people worse: the mean of the weights of both draws both.
phase 11 12 "$ELSE" 45000 4e-4 task.levels.mean=1.2
train emoji.up2 --init dalle2_shapes_up2 --out "$RUNS/up2"

embed "$RUNS/up2" emoji_up2 --preset emoji.up2 --before dalle2_shapes_up2 --ranges "$PICTURES"
embed "$RUNS/12" emoji --average "$RUNS/11" --preset emoji.text --before dalle2_shapes --before "$RUNS/1" --before "$RUNS/2" --before "$RUNS/3" \
    --before "$RUNS/4" --before "$RUNS/5" --before "$RUNS/6" --before "$RUNS/7" --before "$RUNS/8" --before "$RUNS/9" \
    --before "$RUNS/10" --before "$RUNS/11" --ranges "$PICTURES" \
    --part clip=emoji_clip --part upsampler=emoji_up2
