#!/bin/sh
# On a machine with an NVIDIA GPU: the GPU tests (every kernel and dtype against float64, masks bit by bit against the
# CPU's), then kernels, steps in GPT-2's shapes and a profile. All of it in eight minutes.
#   tests/gpu/run.sh [FOLDER]     result files go to FOLDER (default: data/bench)
#   tests/gpu/run.sh --rehearse   the same with tiny shapes, also on a CPU; the files go to a folder that is removed
# Uses .venv where `make` made one, else python3; set PYTHON to choose. Stops at the first failure.
set -e
cd "$(dirname "$0")/../.."
python="${PYTHON:-python3}"
[ -z "$PYTHON" ] && [ -x .venv/bin/python ] && python=.venv/bin/python
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
if [ "$1" = --rehearse ]; then
  out=$(mktemp -d)
  trap 'rm -r "$out"' EXIT
  TORCHDYNAMO_DISABLE=1 "$python" -m lens bench all --rehearsal --out "$out"
  cat "$out"/*.md
  exit
fi
"$python" -c "import torch; assert torch.cuda.is_available()" 2>/dev/null || { echo "lens: $python sees no NVIDIA GPU; run this on a machine with one, with torch built for CUDA." >&2; exit 1; }
"$python" -m lens info
timeout 240 "$python" -m pytest -q -m gpu --durations=5 tests
timeout 240 "$python" -m lens bench all ${1:+--out "$1"}
echo "Now commit the two files, and data/MANIFEST.json where it changed."
