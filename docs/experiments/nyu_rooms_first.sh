#!/usr/bin/env bash
# The runs of "Rooms before real images" in docs/results.md with one seed, several at once on one GPU,
# and the table and figure of all seeds that have been run, in runs/nyu-rooms-first/report. Started
# again, it continues the runs that have not finished. While up to eight runs shared one H100, each
# start took two to three minutes and each segmentation half a minute, without compilation. On
# one CPU core, the runs of a seed take about three and a half hours.
#   bash docs/experiments/nyu_rooms_first.sh SEED [further flags of the runs on NYU-Depth V2, such as --manual_dir=FOLDER]
set -eu
cd "$(dirname "$0")/../.."
seed=${1:?usage: bash docs/experiments/nyu_rooms_first.sh SEED [further flags of the runs on NYU-Depth V2]}
shift
trap 'kill $(jobs -p)' INT TERM
root=runs/nyu-rooms-first
flags=docs/experiments
mkdir -p "$root"
# The runs share the GPU's memory.
export XLA_PYTHON_CLIENT_PREALLOCATE=false

# run NAME FLAG...: starts a run.
run() {
  python launch.py "${@:2}" --workdir="$root/$1-$seed" >"$root/$1-$seed.log" 2>&1 &
  started="${started:-} $!"
}

# study ARM FLAG...: starts the three runs of segmentation of an arm, one after the other.
study() {
  run "$1" --flagfile=$flags/nyu_rooms_first.flags --seeds="$seed" "${@:2}"
}

# finish: waits for all that was started.
finish() {
  for job in $started; do
    wait "$job" || failed=yes
  done
  started=
  [ -z "${failed:-}" ] || { echo "a run failed, see $root/*-$seed.log" >&2; exit 1; }
}

# from NAME: exports the network of a start and prints the flag that begins with it.
from() {
  python launch.py --mode=export --workdir="$root/$1-$seed" >"$root/$1-$seed-export.log" 2>&1 || {
    echo "the export failed, see $root/$1-$seed-export.log" >&2
    exit 1
  }
  echo "--pretrained=$root/$1-{seed}/export/weights.safetensors"
}

python launch.py --flagfile=$flags/nyu_start_free.flags "$@" --mode=prepare
python launch.py --flagfile=$flags/nyu_start_rooms.flags --mode=prepare
run start-rooms --flagfile=$flags/nyu_start_rooms.flags --seed="$seed"
run start-free --flagfile=$flags/nyu_start_free.flags "$@" --seed="$seed"
study scratch "$@"
finish
rooms=$(from start-rooms)
free=$(from start-free)
run start-rooms-free --flagfile=$flags/nyu_start_free.flags "$@" --seed="$seed" "$rooms"
study rooms "$@" "$rooms"
study free "$@" "$free"
finish
both=$(from start-rooms-free)
study rooms-free "$@" "$both"
finish
arms=
for folder in "$root"/{scratch,rooms,free,rooms-free}-[0-9]*/; do
  arms=$arms${arms:+,}${folder%/}
done
python launch.py --mode=report --workdir="$arms" --out="$root/report"
