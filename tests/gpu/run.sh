#!/bin/sh
# On a machine with an NVIDIA GPU: the GPU tests, then the benchmarks.
#   tests/gpu/run.sh [FOLDER]     result files go to FOLDER (default: data/bench)
# Uses .venv where `make` made one, else python3; set PYTHON to choose. Stops at the first failure.
set -e
cd "$(dirname "$0")/../.."
out="${1:-data/bench}"
python="${PYTHON:-python3}"
[ -z "$PYTHON" ] && [ -x .venv/bin/python ] && python=.venv/bin/python
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
"$python" -c "import torch; assert torch.cuda.is_available()" 2>/dev/null || { echo "lens: $python sees no NVIDIA GPU; run this on a machine with one, with torch built for CUDA." >&2; exit 1; }
mkdir -p "$out"
"$python" -m lens info
"$python" -m pytest -q -m gpu tests
name=$("$python" -c "import torch; from lens.scale.bench.measure import slug; from lens.results.provenance import machine; print(slug(machine(torch.device('cuda'))))")
"$python" -m lens bench kernels --out "$out/$name.csv"
"$python" -m lens bench lens
"$python" -m lens bench edit
echo "Now commit $out/$name.csv, and data/MANIFEST.json where it changed."
