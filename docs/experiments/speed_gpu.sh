#!/usr/bin/env bash
# Measures on one GPU what docs/speed.md and docs/growth.md lack. Each measurement has a file in
# runs/speed-gpu, and docs/growth.py writes docs/growth_gpu.json. They are made one after the other, since
# a program that compiles meanwhile would distort them; only the trainings in both precisions run at once.
# Their time limits add up to twelve minutes. Started again, the script makes those that are missing,
# faster since it finds the compiled programs. It needs the extras cuda12 and torchjd. It has not been run
# as a whole.
#   bash docs/experiments/speed_gpu.sh [further flags of every launch.py, such as --data_dir=FOLDER]
set -u
cd "$(dirname "$0")/../.."
flags=("$@")
root=runs/speed-gpu
mkdir -p "$root"
large=(--dataset=rooms:train=96,test=8 --image_size=288x384 --batch_size=8)
network=--model=resnet_unet:backbone=resnet18
benchmark=(--mode=benchmark "${large[@]}" "$network" --noaugment --benchmark_steps=20)

# measure NAME SECONDS COMMAND...: runs a command, unless it has been run, and keeps what it prints.
measure() {
  [ ! -e "$root/$1.txt" ] || return 0
  if timeout "$2" "${@:3}" >"$root/$1.log" 2>&1; then
    mv "$root/$1.log" "$root/$1.txt"
  else
    echo "$1 failed or took more than $2 seconds, see $root/$1.log" >&2
  fi
}

# launch NAME SECONDS FLAG...: measures with launch.py.
launch() {
  measure "$1" "$2" python launch.py "${@:3}" ${flags[@]+"${flags[@]}"}
}

# train PRECISION: trains with nash on rooms; the second and third seed find the programs of the first.
train() {
  for seed in 0 1 2; do
    launch "nash-$1-$seed" $((seed ? 35 : 80)) --dataset=rooms "$network" --weighting=nash \
      --epochs=12 --evaluate_every=12 --batch_size=8 --learning_rate=1e-3 --schedule=cosine \
      --noaugment --cache=device --precision="$1" --seed="$seed" --workdir="$root/nash-$1-$seed"
  done
}

# The renderer takes longer to compile for a GPU than to render these rooms on a CPU.
export JAX_PLATFORMS=cpu
launch prepare 70 --mode=prepare --dataset=rooms &
launch prepare-large 70 --mode=prepare "${large[@]:0:2}"
wait
unset JAX_PLATFORMS
launch float32 150 "${benchmark[@]}" --weightings=equal,uw,upgrad,nash --compare_torch
launch bfloat16 90 "${benchmark[@]}" --weightings=equal,nash --precision=bfloat16
launch input 60 --mode=benchmark --benchmark=input "${large[@]}" "$network" --weighting=equal
# Programs that share a GPU must not reserve its memory.
export XLA_PYTHON_CLIENT_PREALLOCATE=false
train float32 &
train bfloat16 &
wait
unset XLA_PYTHON_CLIENT_PREALLOCATE
launch rendering 90 "${benchmark[@]}" --dataset=rooms:stream=true --weightings=equal
measure growth 110 python docs/growth.py
! compgen -G "$root/*.log" >/dev/null
