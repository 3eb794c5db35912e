#!/bin/sh
# Ours and the peers in one sitting, on one card: `docs/peer/sitting.sh [FOLDER] [DEVICE]` leaves JSON lines in FOLDER.
# Needs `fp8flow` on the PATH (or in FP8FLOW), and for the peers a Python with torch (or the one in PYTHON).
set -eu
here=$(dirname "$0")
out=${1:-sitting}
device=${2:-cuda:0}
[ "$device" = cuda ] && device=cuda:0
ours=${FP8FLOW:-fp8flow}
python=${PYTHON:-python3}
mkdir -p "$out"
export CUDA_DEVICE_ORDER=PCI_BUS_ID CUDA_VISIBLE_DEVICES="${device#cuda:}"
nvidia-smi --query-gpu=index,name,driver_version,power.limit,clocks.sm,temperature.gpu --format=csv > "$out/card.csv" || true

for what in gemm cast attention; do
    "$ours" bench "$what" --device cuda --json > "$out/ours-$what.jsonl"
    "$python" "$here/card.py" "$what" --json > "$out/peers-$what.jsonl"
done

: > "$out/ours-train.jsonl"
for recipe in "none" \
    "torchao-rowwise --recipe rowwise" "torchao-rowwise --recipe tensorwise" \
    "transformer-engine-hybrid --recipe delayed" "transformer-engine-hybrid --recipe current" \
    "transformer-engine-hybrid --recipe blockwise"; do
    # shellcheck disable=SC2086 # a backend, and its option
    "$ours" bench train --device cuda --backend $recipe --json >> "$out/ours-train.jsonl" || echo "left out: $recipe" >&2
done
"$python" "$here/card.py" train --like "$out/ours-train.jsonl" --json > "$out/peers-train.jsonl"
