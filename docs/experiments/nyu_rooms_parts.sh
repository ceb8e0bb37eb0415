#!/usr/bin/env bash
# The runs of "What of the rooms matters" in docs/results.md with one seed, one after the other on one
# core, and the table of all seeds that have been run, in runs/nyu-rooms-parts/report. Started again,
# it continues where it stopped.
#   bash docs/experiments/nyu_rooms_parts.sh SEED [further flags of the runs on NYU-Depth V2, such as --manual_dir=FOLDER]
set -eu
cd "$(dirname "$0")/../.."
seed=${1:?usage: bash docs/experiments/nyu_rooms_parts.sh SEED [further flags of the runs on NYU-Depth V2]}
shift
root=runs/nyu-rooms-parts
flags=docs/experiments
small="--model=small --image_size=48x64 --learning_rate=3e-3 --seed=$seed"
rooms="--flagfile=$flags/nyu_start_rooms.flags $small --epochs=26 --evaluate_every=26"
free="--flagfile=$flags/nyu_start_free.flags $small --epochs=26 --evaluate_every=26"
mkdir -p "$root"

# run NAME FLAG...: makes a run that has not finished.
run() {
  python launch.py "${@:2}" --workdir="$root/$1-$seed" >>"$root/$1-$seed.log" 2>&1 || {
    echo "a run failed, see $root/$1-$seed.log" >&2
    exit 1
  }
}

# start NAME FLAG...: trains a network, exports it and begins segmentation with it.
start() {
  run "start-$1" "${@:2}"
  run "start-$1" --mode=export
  study "$1" --pretrained="$root/start-$1-{seed}/export/weights.safetensors"
}

# study ARM FLAG...: trains segmentation with each share of the labels.
study() {
  run "$1" --flagfile=$flags/nyu_rooms_first.flags "${nyu[@]}" --model=small --image_size=48x64 \
    --learning_rate=3e-3 --epochs=4 --evaluate_every=4 --seeds="$seed" "${@:2}"
}

nyu=("$@")
study scratch
start rooms $rooms
start short $rooms --epochs=9 --evaluate_every=9
start few $rooms --dataset=rooms:train=200,test=8 --epochs=90 --evaluate_every=90
start labels $rooms --tasks=segmentation --weighting=equal --weigh_every=1
start shapes $rooms --tasks=depth,normals
start free $free "$@"
start rooms-free $free "$@" --pretrained="$root/start-rooms-{seed}/export/weights.safetensors"
arms=
for arm in scratch rooms short few labels shapes free rooms-free; do
  for folder in "$root/$arm"-[0-9]*/; do
    arms=$arms${arms:+,}${folder%/}
  done
done
python launch.py --mode=report --workdir="$arms" --out="$root/report"
