#!/usr/bin/env bash
# Tests, benchmark and profiles on a machine with a CUDA GPU, in under ten minutes and without network.
#
#   [WHEELS=folder] [OUT=folder] [DEVICE=cuda:0] [PYTHON=python3] bash benchmarks/gpu.sh
#
# The machine's Python must have torch, triton, numpy, numba, pyarrow, safetensors and pytest. What else is needed
# (pydantic, rich; hypothesis and pytest-timeout for the tests) may come from a folder of wheels, which are put into a
# temporary folder. With network, make it like this, for the machine's Python version:
#
#   python -m pip download --only-binary=:all: --python-version 3.12 --implementation cp \
#     --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 \
#     -d wheels 'pydantic>=2.9,<3' 'rich>=13' 'hypothesis>=6.100' 'pytest-timeout>=2.3'
#
# OUT (default benchmarks/results) gets tests.txt, MACHINE_DATE.json and .md, and profile_*.txt. The exit status is that
# of the first step that fails; later steps still run, so that time on a rented machine is not lost.
set -uo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3} out=${OUT:-benchmarks/results} device=${DEVICE:-cuda:0} status=0
mkdir -p "$out"

export PYTHONUNBUFFERED=1 PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"
if [ -n "${WHEELS:-}" ]; then
  site=$(mktemp -d)
  trap 'rm -rf "$site"' EXIT
  "$python" -m pip install --quiet --no-index --no-deps --no-compile --target "$site" "$WHEELS"/*.whl || exit
  PYTHONPATH="$PYTHONPATH:$site"  # last on the path but before what is installed
fi
"$python" -c "import numba, pyarrow, pydantic, pytest, rich, safetensors, torch; print('torch', torch.__version__)" || exit

step() { # seconds, file that gets a copy of the output ("" for none), command
  local limit=$1 file=$2 failed
  shift 2
  echo "== $*"
  timeout --kill-after=5 "$limit" "$@" 2>&1 | tee "${file:-/dev/null}"
  failed=${PIPESTATUS[0]}
  [ "$failed" -eq 0 ] && return
  echo "FAILED (status $failed; 124: more than $limit s): $*" >&2
  [ "$status" -ne 0 ] || status=$failed
}

step 150 "$out/tests.txt" "$python" -m pytest -m gpu tests/gpu
step 45 "$out/profile_small.txt" "$python" benchmarks/profile_step.py --device "$device"
step 45 "$out/profile_large.txt" "$python" benchmarks/profile_step.py --device "$device" \
  --batch_size 240 --layer 512 --n_items 60000 --loss bpr-max
step 330 "" "$python" benchmarks/bench.py --device "$device" --out "$out" ${BENCH:-}
exit "$status"
