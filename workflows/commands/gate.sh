# gate.sh EVALUATION LIMIT: ends with 1 unless the loss of an evaluation is below the limit.
set -eu
loss=$(awk '/"loss"/ { gsub(/[",]/, ""); print $2; exit }' "$1")
if awk -v loss="$loss" -v limit="$2" 'BEGIN { exit !(loss < limit) }'; then
    echo "loss $loss is below $2"
else
    echo "loss $loss is not below $2" >&2
    exit 1
fi
