#!/usr/bin/env bash
# Builds what cuda/gpu-check.sh runs on a machine with a GPU and no Rust, into one folder: the CUDA tests, the roofline report, the scripts. x86-64, and a glibc that
# is no newer than that machine's.
#
#     cuda/gpu-build.sh [FOLDER]        by default target/gpu-check
#
# Then, there: FOLDER/gpu-check.sh [OUT].
set -euo pipefail
cd "$(dirname "$0")/.."
folder=${1:-${CARGO_TARGET_DIR:-target}/gpu-check}
# Bytes that the folder may have, so that it travels.
most=$((64 << 20))

rm -rf "$folder"
mkdir -p "$folder/tests"

# Lines of cargo's JSON that name an executable: `"executable":"PATH"`.
executables() { sed -nE 's/.*"executable":"([^"]+)".*/\1/p'; }

while read -r path; do
    name=${path##*/}
    case $name in
    faults-* | no_driver-* | no_compiler-*) continue ;; # these want a C++ compiler, and a machine without what the others need
    esac
    cp "$path" "$folder/tests/${name%-*}"
done < <(cargo test --package foof-cuda --tests --no-run --message-format=json 2>/dev/null | executables)
[ -n "$(ls "$folder/tests")" ] || {
    echo "gpu-build: no tests were built: cargo test --package foof-cuda --tests --no-run" >&2
    exit 1
}
roofline=$(cargo build --release --features cuda --example roofline --message-format=json 2>/dev/null | executables | tail -n 1)
[ -n "$roofline" ] || {
    echo "gpu-build: no roofline: cargo build --release --features cuda --example roofline" >&2
    exit 1
}
cp "$roofline" "$folder/roofline"
strip --strip-debug "$folder"/roofline "$folder"/tests/* 2>/dev/null || true
cp cuda/gpu-check.sh cuda/peers.py "$folder"

bytes=$(du -sb "$folder" | cut -f1)
if [ "$bytes" -gt "$most" ]; then
    echo "gpu-build: $folder has $bytes bytes, more than $most" >&2
    exit 1
fi
echo "$folder: $((bytes >> 20)) MB: $(find "$folder/tests" -type f -printf '%f ')and roofline"
