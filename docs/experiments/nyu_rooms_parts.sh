#!/usr/bin/env bash
# The runs of "What matters about the rooms" in docs/results.md with one seed, one after the other on one
# core, and the table of all seeds that have been run, in runs/nyu-rooms-parts/report. The runs of a seed take
# about an hour of one CPU core. They were not run on an H100, which would take about half an hour, most of it
# for compiling, judging by other runs. Started again, it continues where it stopped.
#   bash docs/experiments/nyu_rooms_parts.sh SEED [further flags of the runs on NYU-Depth V2, such as --manual_dir=FOLDER]
set -eu
cd "$(dirname "$0")/../.."
seed=${1:?usage: bash docs/experiments/nyu_rooms_parts.sh SEED [further flags of the runs on NYU-Depth V2]}
shift
nyu=("$@")
root=runs/nyu-rooms-parts
flags=docs/experiments
small=(--model=small --image_size=48x64 --learning_rate=1e-2)
rooms=(--flagfile=$flags/nyu_start_rooms.flags "${small[@]}")
free=(--flagfile=$flags/nyu_start_free.flags "${small[@]}" "${nyu[@]}")
mkdir -p "$root"

# run NAME FLAG...: makes a run, or what is left of it.
run() {
  python launch.py "${@:2}" --workdir="$root/$1-$seed" >>"$root/$1-$seed.log" 2>&1 || {
    echo "a run failed, see $root/$1-$seed.log" >&2
    exit 1
  }
}

# study ARM FLAG...: trains segmentation with each share of the labels.
study() {
  run "$1" --flagfile=$flags/nyu_rooms_first.flags "${small[@]}" "${nyu[@]}" --seeds="$seed" "${@:2}"
}

# start ARM FLAG...: trains a network and lets segmentation begin with it.
start() {
  run "start-$1" "${@:2}" --seed="$seed"
  run "start-$1" --mode=export
  study "$1" --pretrained="$root/start-$1-{seed}/export/weights.safetensors"
}

study scratch
start rooms "${rooms[@]}"
start short "${rooms[@]}" --epochs=17 --evaluate_every=17
start few "${rooms[@]}" --dataset=rooms:train=200,test=8 --epochs=177 --evaluate_every=177
start labels "${rooms[@]}" --tasks=segmentation --weighting=equal --weigh_every=1
start shapes "${rooms[@]}" --tasks=depth,normals
start plain "${rooms[@]}" --dataset=rooms:train=696,test=8,stream=true,textures=false
start unlit "${rooms[@]}" --dataset=rooms:train=696,test=8,stream=true,light=false
start free "${free[@]}"
start rooms-free "${free[@]}" --pretrained="$root/start-rooms-{seed}/export/weights.safetensors"
arms=
for folder in "$root"/{scratch,rooms,short,few,labels,shapes,plain,unlit,free,rooms-free}-[0-9]*/; do
  arms=$arms${arms:+,}${folder%/}
done
python launch.py --mode=report --workdir="$arms" --out="$root/report"
