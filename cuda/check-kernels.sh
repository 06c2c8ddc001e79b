#!/usr/bin/env bash
# Compiles every kernel for every architecture, with the options and headers that the library gives NVRTC, and reads what ptxas says: no GPU is needed. A
# fast kernel of f32 that spills registers, or keeps an array on the stack, is refused: right but several times too slow.
#
#     cuda/check-kernels.sh             check, and check that the check refuses kernels that are broken on purpose
#     cuda/check-kernels.sh FILE.cu     check this file only
#
# NVRTC comes from PyPI, pinned, into a virtual environment that is kept in ${XDG_CACHE_HOME:-~/.cache}/foof. Where it cannot be had (no Python, no network) the
# check says so and is skipped; with FOOF_REQUIRE_NVRTC=1 that is a failure. Each file is compiled by a process of its own, because a malformed one can take NVRTC
# down with it. What has not changed is not compiled again (target/check-kernels).
set -euo pipefail
cd "$(dirname "$0")/.."

architectures='sm_80 sm_90 sm_90a sm_100 sm_120'
version=13.0.88

skip() {
    echo "check-kernels: SKIPPED: $1"
    [ "${FOOF_REQUIRE_NVRTC:-}" != 1 ] || exit 1
    exit 0
}

environment=${XDG_CACHE_HOME:-$HOME/.cache}/foof/nvrtc-$version
installed=$environment/installed
if [ ! -f "$installed" ]; then
    command -v python3 >/dev/null || skip "no python3 to fetch NVRTC with"
    rm -rf "$environment"
    mkdir -p "$environment"
    if ! { python3 -m venv "$environment" && "$environment/bin/pip" install --quiet --disable-pip-version-check "nvidia-cuda-nvrtc==$version"; } >"$environment/log" 2>&1; then
        tail -n 3 "$environment/log"
        skip "nvidia-cuda-nvrtc $version could not be installed in $environment"
    fi
    touch "$installed"
fi
library=$(find "$environment" -name 'libnvrtc.so*' -print -quit)
[ -n "$library" ] || skip "no libnvrtc in $environment"
export LD_LIBRARY_PATH=${library%/*}${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}

target=${CARGO_TARGET_DIR:-target}
cargo build --quiet --package foof-cuda --example compile
compile=$target/debug/examples/compile

work=$target/check-kernels
mkdir -p "$work"
key=$({
    "$compile" --version
    cat cuda/src/compile.rs cuda/examples/compile.rs cuda/kernels/*.cuh
} | sha256sum | cut -c1-16)

# What ptxas says of file $1 for architecture $2, to the file that is printed. Compiled once.
usage() {
    local file=$1 arch=$2 text result unfinished
    text=$file
    [ -f "$file" ] || text=cuda/kernels/$file
    result=$work/$(cat - "$text" <<<"$key $arch" | sha256sum | cut -c1-32)
    if [ ! -f "$result" ]; then
        unfinished=$result.$BASHPID
        "$compile" "$file" "$arch" >"$unfinished" || {
            rm -f "$unfinished"
            echo "refused: $file for $arch does not compile" >&2
            return 1
        }
        mv "$unfinished" "$result"
    fi
    cat "$result"
}

# A table of lines `FILE ARCH KERNEL registers=N shared=N stack=N spilled=N`, and on standard error what is refused.
inspect() {
    awk -v architectures="$architectures" '
    {
        file = $1; arch = $2; kernel = $3
        for (i = 4; i <= NF; i++) { split($i, pair, "="); value[pair[1]] = pair[2] }
        if (!(kernel in seen)) { seen[kernel]; order[++count] = kernel; if (length(kernel) > width) width = length(kernel) }
        text = value["registers"]
        if (value["shared"]) text = text " " value["shared"] "B"
        if (value["stack"]) text = text " stack " value["stack"]
        if (value["spilled"]) text = text " spills " value["spilled"]
        cell[kernel, arch] = text
        # Plain rungs, one block or thread for each entry or matrix, are there to be compared with.
        fast = kernel ~ /_f32$/ && kernel !~ /_(plain|block)_/
        if (fast && value["spilled"] + value["stack"] > 0) {
            print "refused: " kernel " for " arch ": " value["spilled"] " bytes spilled, " value["stack"] " on the stack" > "/dev/stderr"
            refused++
        }
    }
    END {
        if (!count) exit 1
        n = split(architectures, name, " ")
        printf "%-" width "s", "registers of a thread"
        for (a = 1; a <= n; a++) printf "  %-16s", name[a]
        print ""
        for (k = 1; k <= count; k++) {
            printf "%-" width "s", order[k]
            for (a = 1; a <= n; a++) printf "  %-16s", cell[order[k], name[a]]
            print ""
        }
        exit refused > 0
    }'
}

# Compiles and inspects the files given.
check() {
    local lines failed=0 file arch running=0 jobs
    lines=$(mktemp -d)
    jobs=$(nproc)
    for file in "$@"; do
        for arch in $architectures; do
            if [ "$running" -ge "$jobs" ]; then
                wait -n || failed=1
                running=$((running - 1))
            fi
            usage "$file" "$arch" >"$lines/$(basename "$file").$arch" &
            running=$((running + 1))
        done
    done
    while [ "$running" -gt 0 ]; do
        wait -n || failed=1
        running=$((running - 1))
    done
    cat "$lines"/* | sort -s -k1,1 -k3,3 | inspect || failed=1
    rm -rf "$lines"
    return "$failed"
}

if [ $# -gt 0 ]; then
    check "$@"
    exit
fi

mapfile -t files < <("$compile" --list)
for text in cuda/kernels/*.cu; do
    [[ " ${files[*]} " == *" ${text##*/} "* ]] || {
        echo "check-kernels: $text is not among the library's sources (cuda/src/compile.rs)" >&2
        exit 1
    }
done
check "${files[@]}"

# Kernels that are broken on purpose.
broken=$(mktemp -d)
trap 'rm -rf "$broken"' EXIT
cat >"$broken/spills.cu" <<'KERNEL'
extern "C" __global__ void __launch_bounds__(1024, 2) spills_f32(float* x) {
    float value[64];
#pragma unroll
    for (int i = 0; i < 64; i++) value[i] = x[64 * threadIdx.x + i];
    __syncthreads();
#pragma unroll
    for (int i = 0; i < 64; i++) x[64 * i + threadIdx.x] = value[i] * value[63 - i];
}
KERNEL
cat >"$broken/malformed.cu" <<'KERNEL'
extern "C" __global__ void malformed_f32(float* x) { x[0] = nothing_of_that_name; }
KERNEL
demand() {
    local file=$1 says=$2 log
    if log=$(check "$broken/$file" 2>&1) || ! grep -q "$says" <<<"$log"; then
        printf 'check-kernels: %s was not refused with "%s":\n%s\n' "$file" "$says" "$log" >&2
        exit 1
    fi
}
demand spills.cu 'refused: spills_f32 for sm_90:'
demand malformed.cu 'nothing_of_that_name'
echo "check-kernels: no fast kernel of f32 spills; broken ones are refused"
