#!/usr/bin/env bash
# The runs of "NYU-Depth V2, at full size" in docs/results.md, all at once on one GPU, and their table
# in runs/nyu-report. They took eight minutes on one H100. Started again, it continues the runs that
# have not finished.
#   bash docs/experiments/nyu.sh SEED [further flags of every run, such as --manual_dir=FOLDER]
set -eu
cd "$(dirname "$0")/../.."
seed=${1:?usage: bash docs/experiments/nyu.sh SEED [further flags of every run]}
shift
trap 'kill $(jobs -p)' INT TERM
mkdir -p runs
# The runs share the GPU's memory.
export XLA_PYTHON_CLIENT_PREALLOCATE=false
python launch.py --flagfile=docs/experiments/nyu.flags "$@" --mode=prepare
folders=
for run in nash uw equal segmentation depth normals; do
  case $run in
    nash | uw | equal) choice=--weighting=$run ;;
    *) choice=--tasks=$run ;;
  esac
  folder=runs/nyu-$run-$seed
  folders=$folders${folders:+,}$folder
  python launch.py --flagfile=docs/experiments/nyu.flags "$@" "$choice" --seed="$seed" \
    --workdir="$folder" >"runs/nyu-$run-$seed.log" 2>&1 &
  started="${started:-} $!"
done
for job in $started; do
  wait "$job" || failed=yes
done
[ -z "${failed:-}" ] || { echo "a run failed, see runs/nyu-*-$seed.log" >&2; exit 1; }
python launch.py --mode=report --workdir="$folders" --out=runs/nyu-report
