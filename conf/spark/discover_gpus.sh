#!/bin/sh
# Prints the addresses of this machine's GPUs as Spark's resource discovery reads them:
#   {"name": "gpu", "addresses": ["0", "1"]}
# An address is a card's index; where a card is divided (MIG), it is the UUID of an instance, and of every whole card
# beside it, because CUDA counts no cards once there are instances. Where CUDA_VISIBLE_DEVICES is set, its entries are
# the addresses: nvidia-smi would list cards that the tasks cannot see. Exit code 1 and a word on stderr without a GPU.

fail() {
    echo "discover_gpus.sh: $1" >&2
    exit 1
}

command -v nvidia-smi >/dev/null ||
    fail "nvidia-smi is not on PATH ($PATH). Install NVIDIA's driver here, or use no spark.*.resource.gpu settings."

# A line a card, such as: 0, GPU-5c89852c-…, Disabled
answer=$(nvidia-smi --query-gpu=index,uuid,mig.mode.current --format=csv,noheader 2>&1) ||
    fail "nvidia-smi failed: $answer"
cards=$(echo "$answer" | grep -E '^[0-9]+, GPU-')

if [ -n "${CUDA_VISIBLE_DEVICES+set}" ]; then
    addresses=$(echo "$CUDA_VISIBLE_DEVICES" | tr -d ' ' | tr ',' '\n' | grep -E '^([0-9]+$|GPU-|MIG-)')
    [ -n "$addresses" ] || fail "CUDA_VISIBLE_DEVICES='$CUDA_VISIBLE_DEVICES' hides every GPU of this machine."
elif echo "$cards" | grep -q 'Enabled$'; then
    whole=$(echo "$cards" | grep -v 'Enabled$' | cut -d' ' -f2 | tr -d ',')
    instances=$(nvidia-smi -L | sed -n 's/.*(UUID: \(MIG-[^)]*\)).*/\1/p')
    addresses=$(printf '%s\n%s\n' "$whole" "$instances" | grep .)
    [ -n "$addresses" ] || fail "MIG is on, but no card has an instance. Create some: nvidia-smi mig -cgi PROFILES -C."
else
    addresses=$(echo "$cards" | cut -d, -f1)
    [ -n "$addresses" ] || fail "nvidia-smi lists no GPU: $answer"
fi

printf '{"name": "gpu", "addresses": [%s]}\n' "$(echo "$addresses" | sed 's/.*/"&"/' | paste -sd, -)"
