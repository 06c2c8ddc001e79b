#!/usr/bin/env bash
# Everything that only a GPU can say, in under eight minutes, on a machine with a driver and PyTorch and without Rust; beside it what cuda/gpu-build.sh made.
#
#     gpu-check.sh [OUT]       OUT: where results go, by default $OUT, else gpu-results
#
# Property tests on the device, compute-sanitizer over small ones, then `roofline --device cuda` with PyTorch's times of the same work beside it. A step that fails is
# recorded and the next one runs. Exit status: how many failed. OUT/summary.txt says it all in brief.
#
# GPU_CHECK_PEERS=no leaves PyTorch out; GPU_CHECK_TINY=yes takes shapes that take no time, to see that the script runs.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=${1:-${OUT:-gpu-results}}
mkdir -p "$out"
out=$(cd "$out" && pwd)
summary=$out/summary.txt
: >"$summary"

# NVRTC is PyTorch's: the folders of its nvidia packages.
if command -v python3 >/dev/null; then
    folders=$(python3 - <<'PYTHON' 2>/dev/null
import glob, os, site, sys
roots = site.getsitepackages() + [site.getusersitepackages()] + sys.path
found = {d for root in roots for d in glob.glob(os.path.join(root, "nvidia", "*", "lib"))}
print(":".join(sorted(found)))
PYTHON
    )
    [ -z "$folders" ] || export LD_LIBRARY_PATH=$folders${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
fi
export FOOF_TEST_DEVICE=${FOOF_TEST_DEVICE:-gpu}
# Compiled once for all steps.
export FOOF_CUDA_CACHE=$out/cache
tiny=()
[ "${GPU_CHECK_TINY:-no}" = no ] || tiny=(--tiny)

say() { printf '%s\n' "$*" | tee -a "$summary"; }

failed=0
# Seconds that all steps have together, and those kept for the steps after this one.
all=460 kept=210
# step NAME SECONDS COMMAND..: its output goes to OUT/NAME.log, its fate to the summary.
step() {
    local name=$1 seconds=$2 status start=$SECONDS left=$((all - kept - SECONDS))
    shift 2
    if [ "$left" -lt 5 ]; then
        say "NO TIME  $name"
        failed=$((failed + 1))
        return 0
    fi
    [ "$seconds" -le "$left" ] || seconds=$left
    timeout --kill-after=5 "$seconds" "$@" >"$out/$name.log" 2>&1
    status=$?
    case $status in
    0) say "ok       $name ($((SECONDS - start)) s)" ;;
    124 | 137) say "TIMEOUT  $name after $seconds s" && failed=$((failed + 1)) ;;
    *) say "FAILED   $name (exit $status, $((SECONDS - start)) s): $(grep -vE '^\s*$' "$out/$name.log" | tail -n 1 | cut -c1-200)" && failed=$((failed + 1)) ;;
    esac
    return 0
}

say "$(date -u +%Y-%m-%dT%H:%MZ) $(nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader 2>/dev/null || echo 'no nvidia-smi')"

# 1. Properties. Each program compiles the kernels that it uses.
# Short ones first: a long one that takes all the time that is left should cost no other.
for test in $(ls -rS "$here"/tests/*); do
    step "test-${test##*/}" 100 "$test" --test-threads=4
done

# 2. compute-sanitizer: its own run of a few tests that cover each family, small because it is ten to a hundred times slower.
sanitizer=$(command -v compute-sanitizer || find /usr/local/cuda*/bin -name compute-sanitizer -print -quit 2>/dev/null)
small_of() {
    case $1 in
    inverse) echo failures::pivots_are_positive_and_finite ;;
    covariance) echo errors ;;
    convolution) echo safe ;;
    *) echo '' ;;
    esac
}
if [ -n "$sanitizer" ]; then
    for tool in memcheck racecheck initcheck; do
        for test in "$here"/tests/*; do
            name=${test##*/}
            filter=$(small_of "$name")
            [ -n "$filter" ] || continue
            step "$tool-$name" 40 "$sanitizer" --tool "$tool" --error-exitcode 99 "$test" --test-threads=1 "$filter"
        done
    done
else
    say "SKIPPED  compute-sanitizer: not installed"
fi

# 3. The peers first, so that the report can name them.
kept=100
peers=()
if [ "${GPU_CHECK_PEERS:-yes}" = yes ]; then
    step peers 90 python3 "$here/peers.py" --json "$out/peers.json" "${tiny[@]}"
    [ ! -s "$out/peers.json" ] || peers=(--peers "$out/peers.json")
fi
kept=0
step roofline 120 "$here/roofline" --device cuda --json "$out/roofline.json" "${peers[@]}" "${tiny[@]}"
if [ -s "$out/roofline.log" ]; then
    say ''
    say "$(cat "$out/roofline.log")"
fi
say ''
say "$failed failed, $SECONDS s"
exit "$failed"
