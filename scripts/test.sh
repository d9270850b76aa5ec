#!/usr/bin/env bash
# Runs every test: on TensorFlow with the doctests, then layers and models on JAX,
# their conformance suite included.
# Arguments go to pytest; with paths among them, only those run, on TensorFlow.
#   bash scripts/test.sh
#   bash scripts/test.sh tests/layers -k attention
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash scripts/environment.sh

cores=$(nproc)
workers=$((cores < 4 ? cores : 4))
# Each worker keeps to its share of the cores.
export TF_NUM_INTRAOP_THREADS=$((cores / workers)) TF_NUM_INTEROP_THREADS=1
export TF_FORCE_GPU_ALLOW_GROWTH=true XLA_PYTHON_CLIENT_PREALLOCATE=false

# A file stays with one worker, which makes the file's models and exports once.
run_pytest() {
  .venv/bin/python -m pytest --numprocesses="$workers" --dist=loadfile \
    --no-loadscope-reorder "$@"
}

for argument in "$@"; do
  if [[ -e ${argument%%::*} ]]; then
    run_pytest "$@"
    exit
  fi
done

# Both runs are made even if the first fails: one look shows everything.
status=0
echo "On TensorFlow"
KERAS_BACKEND=tensorflow run_pytest "$@" || status=$?
echo "Layers and models on JAX"
# Most of its time is compiling: XLA is to do so quickly rather than well. It optimises
# less, fuses by its older emitters, and keeps to AVX: code for wider vectors takes
# longer to make. (Before AVX there are no conversions of float16.)
# The dearest files come first, so that no worker waits long for the last of the other.
quick_compiles="--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false"
quick_compiles+=" --xla_cpu_max_isa=AVX"
KERAS_BACKEND=jax XLA_FLAGS="$quick_compiles ${XLA_FLAGS:-}" run_pytest \
  tests/conformance tests/models tests/layers tests/ops "$@" || status=$?
exit "$status"
