#!/usr/bin/env bash
# Lesson 3 at a terminal: XOR by hand with grpcurl alone. The page is docs/course/03_by_hand.md.

set -euo pipefail

server=${EPOCHD_SERVER:-127.0.0.1:50051}

call() {
    grpcurl -plaintext -d "$2" "${server#http://}" "epochd.v1.ModelService/$1"
}

fail() {
    echo "03_by_hand.sh: $1" >&2
    exit 1
}

answer=$(call CreateModel '{"architecture": {"input_width": 2, "layers": [
    {"units": 2, "activation": "ACTIVATION_STEP"},
    {"units": 1, "activation": "ACTIVATION_STEP"}
]}}')
pattern='"modelId": *"([^"]+)"'
[[ $answer =~ $pattern ]] || fail "no model in the answer: $answer"
model=${BASH_REMATCH[1]}

answer=$(call SetWeights '{"model_id": "'"$model"'", "layers": [
    {"weights": {"values": [1, -1, -1, 1]}, "bias": {"values": [-0.5, -0.5]}},
    {"weights": {"values": [1, 1]}, "bias": {"values": [-0.5]}}
]}')
pattern='"version": *([0-9]+)'
[[ $answer =~ $pattern ]] || fail "no version in the answer: $answer"
echo "version ${BASH_REMATCH[1]}"
[[ ${BASH_REMATCH[1]} == 2 ]] || fail "the weights should be version 2"

echo "a b | h1 h2 | y"
pattern='"outputs":.*"values":\[([01])\].*"layers":.*"values":\[([01]),([01])\]'
for corner in "0 0" "0 1" "1 0" "1 1"; do
    read -r a b <<< "$corner"
    answer=$(call Predict '{"model_id": "'"$model"'", "inputs": {"values": ['"$a, $b"']}, "layers": [0]}')
    answer=${answer//[[:space:]]/}
    [[ $answer =~ $pattern ]] || fail "not what was asked for: $answer"
    y=${BASH_REMATCH[1]} h1=${BASH_REMATCH[2]} h2=${BASH_REMATCH[3]}
    echo "$a $b |  $h1  $h2 | $y"
    [[ "$h1 $h2" == "$((a > b)) $((b > a))" ]] || fail "the hidden units are wrong"
    [[ $y == "$((a != b))" ]] || fail "this is not XOR"
done
