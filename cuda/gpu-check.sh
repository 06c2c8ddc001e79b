#!/usr/bin/env bash
# Everything that only a GPU can say, in under eight minutes, on a machine with a driver and PyTorch and without Rust; beside it what cuda/gpu-build.sh made.
#
#     gpu-check.sh [OUT]       OUT: where results go, by default $OUT, else gpu-results
#
# Property tests on the device, compute-sanitizer over small ones, then `roofline --device cuda` with PyTorch's times of the same work beside it. A step that fails, is
# missing what it needs, or takes too long is recorded and the next one runs; what it had found by then is kept. Exit status: how many failed. OUT/summary.txt,
# written as it goes, says it all in brief.
#
# GPU_CHECK_PYTHON is the Python that has PyTorch, by default python3; GPU_CHECK_PEERS=no leaves PyTorch out; GPU_CHECK_TINY=yes takes shapes and tests that take no
# time, to see that the script runs.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=${1:-${OUT:-gpu-results}}
mkdir -p "$out"
out=$(cd "$out" && pwd) || exit 1
summary=$out/summary.txt
: >"$summary" || exit 1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python=${GPU_CHECK_PYTHON:-python3}

say() { printf '%s\n' "$*" | tee -a "$summary"; }

failed=0
# Seconds that all steps have together, and those kept for the steps after this one.
all=460 kept=210
# Runs a command for so many seconds at most: its status, 124 or 137 if that was too long. Not waited for is one that cannot even be killed, in the driver.
limited() {
    local seconds=$1 pid until
    shift
    timeout --kill-after=5 "$seconds" "$@" </dev/null &
    pid=$!
    until=$((SECONDS + seconds + 8))
    while kill -0 "$pid" 2>/dev/null; do
        [ "$SECONDS" -lt "$until" ] || return 137
        sleep 0.1
    done
    wait "$pid"
}
# step NAME SECONDS COMMAND..: its output goes to OUT/NAME.log, its fate to the summary; succeeds if the command does.
step() {
    local name=$1 seconds=$2 status start=$SECONDS left=$((all - kept - SECONDS))
    shift 2
    if [ "$left" -lt 5 ]; then
        say "NO TIME  $name"
        failed=$((failed + 1))
        return 1
    fi
    [ "$seconds" -le "$left" ] || seconds=$left
    limited "$seconds" "$@" >"$out/$name.log" 2>&1
    status=$?
    case $status in
    0) say "ok       $name ($((SECONDS - start)) s)" ;;
    124 | 137) say "TIMEOUT  $name after $seconds s" ;;
    *) say "FAILED   $name (exit $status, $((SECONDS - start)) s): $(grep -vE '^\s*$' "$out/$name.log" | tail -n 1 | cut -c1-200)" ;;
    esac
    [ "$status" != 0 ] || return 0
    failed=$((failed + 1))
    # Which tests, what the first panics said, what the sanitizer found.
    {
        grep -aE '\.\.\. FAILED$' "$out/$name.log" | head -n 40
        grep -aE --no-group-separator -A 1 'panicked at|^========= (Invalid|Error|Race|Uninit)' "$out/$name.log" | head -n 12
    } | cut -c1-240 | sed 's/^/         /' | tee -a "$summary"
    return "$status"
}

# NVRTC is PyTorch's: of the same version as its CUDA, which this driver runs, whatever else the loader would find first.
nvrtc=''
if command -v "$python" >/dev/null; then
    cat >"$work/nvrtc.py" <<'PYTHON'
import glob, importlib.util, os, re, sys
folders = sorted({d for root in sys.path for d in glob.glob(os.path.join(root, "nvidia", "*", "lib"))})
torch = importlib.util.find_spec("torch")
version = os.path.join(os.path.dirname(torch.origin), "version.py") if torch and torch.origin else None
cuda = re.search(r"^cuda[^'\"\n]*['\"](\d+)", open(version).read(), re.M) if version and os.path.exists(version) else None
found = [f for d in folders for f in glob.glob(os.path.join(d, "libnvrtc.so.*"))]
found.sort(key=lambda f: bool(cuda) and f.endswith(".so." + cuda.group(1)))
print(found[-1] if found else "")
print(":".join(folders))
PYTHON
    limited 20 "$python" "$work/nvrtc.py" >"$work/nvrtc" 2>"$out/nvrtc.log"
    { read -r nvrtc && read -r folders; } <"$work/nvrtc" || folders=''
    [ -z "$folders" ] || LD_LIBRARY_PATH=$folders${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
    if [ -n "$nvrtc" ]; then
        mkdir "$work/lib"
        ln -s "$nvrtc" "$work/lib/libnvrtc.so"
        LD_LIBRARY_PATH=$work/lib:$LD_LIBRARY_PATH
    fi
fi
for folder in /usr/local/cuda*/lib64; do
    [ ! -d "$folder" ] || LD_LIBRARY_PATH=${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}$folder
done
export LD_LIBRARY_PATH=${LD_LIBRARY_PATH-}
export FOOF_TEST_DEVICE=${FOOF_TEST_DEVICE:-gpu}
# Compiled once for all steps.
export FOOF_CUDA_CACHE=$work/cache
tiny=()
[ "${GPU_CHECK_TINY:-no}" = no ] || tiny=(--tiny)

gpu=$(limited 15 nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader 2>/dev/null)
say "$(date -u +%Y-%m-%dT%H:%MZ) ${gpu:-no nvidia-smi}; NVRTC ${nvrtc:-where the loader finds it}"

# 1. Properties. First the road, which compiles every kernel; then short programs, so that a long one that takes all the time that is left costs no other.
tests=()
[ ! -x "$here/tests/road" ] || tests=("$here/tests/road")
while read -r _ test; do
    [ "${test##*/}" = road ] || tests+=("$test")
done < <(find "$here/tests" -type f -printf '%s %p\n' | sort -n)
# A few tests of each family.
small_of() {
    case $1 in
    inverse) echo failures::pivots_are_positive_and_finite ;;
    covariance) echo errors ;;
    convolution) echo safe ;;
    *) echo '' ;;
    esac
}
for test in "${tests[@]}"; do
    filter=''
    [ ${#tiny[@]} = 0 ] || filter=$(small_of "${test##*/}")
    step "test-${test##*/}" 100 "$test" --test-threads=8 ${filter:+"$filter"}
done

# 2. compute-sanitizer: its own run of small tests, because it is ten to a hundred times slower.
sanitizer=$(command -v compute-sanitizer || find /usr/local/cuda*/bin -name compute-sanitizer -print -quit 2>/dev/null)
if [ -n "$sanitizer" ]; then
    for tool in memcheck racecheck initcheck; do
        for test in "${tests[@]}"; do
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
    step peers 90 "$python" "$here/peers.py" --json "$out/peers.json" "${tiny[@]}"
    [ ! -s "$out/peers.json" ] || peers=(--peers "$out/peers.json")
fi
kept=0
report() { # NAME [FILTER]
    step "$1" 120 "$here/roofline" --device cuda --json "$out/$1.json" "${peers[@]}" "${tiny[@]}" ${2:+--filter "$2"}
}
if ! report roofline; then
    # A kernel that fails takes the rows after it along: those in processes of their own.
    report roofline-convolutions conv_covariance
    report roofline-inverses damped_inverse
fi
for log in "$out"/roofline*.log; do
    say ''
    say "$(cat "$log")"
done
say ''
say "$failed failed, $SECONDS s"
exit "$failed"
