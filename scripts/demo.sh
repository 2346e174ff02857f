#!/usr/bin/env bash
# The whole road once, in minutes on two CPU cores: render scenes, blur them, make LMDBs, train, test, restore a video.
# Everything is written to demo/; nothing is downloaded but packages. Makes .venv if there is none.
#
#     bash scripts/demo.sh
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
export PATH="$bin:$PATH"

options=options/demo_dbn.yml
weights=demo/experiments/demo_dbn/models/net_g_latest.pth
began=$SECONDS
steps=0

step() { steps=$((steps + 1)) && say "" && say "== $steps/6 $*"; }
run() {
    local started=$SECONDS
    say "\$ $*"
    "$@" </dev/null
    say "   took $((SECONDS - started)) s"
}

rm -rf demo/{scene,data,data.lmdb,experiments,results,restored.mp4,side_by_side.png} # of an earlier run

step "Render seven rooms at 240 frames a second: six to train on, one to test on"
run python scripts/demo_scene.py demo/scene

step "Average seven frames at a time, in linear light: blurred and sharp pairs"
run deblurkit synth demo/scene/train/*.mkv -o demo/data
run deblurkit synth demo/scene/test/*.mkv -o demo/data --split test --video

step "Store them for fast reading"
run deblurkit lmdb make demo/data

step "Train a small network (curves: .venv/bin/tensorboard --logdir demo/experiments)"
run deblurkit train -opt "$options"

step "Measure it in the room that it has not seen"
run deblurkit test -opt "$options" --weights "$weights"

step "Restore that room's blurred video"
run deblurkit infer demo/data/test/room_7_blur.mp4 -o demo/restored.mp4 --weights "$weights"

say ""
say "== Result, after $((SECONDS - began)) s"
python scripts/demo_report.py demo
say "Videos: demo/data/test/room_7_blur.mp4 (blurred), demo/restored.mp4, demo/data/test/room_7_sharp.mp4"
