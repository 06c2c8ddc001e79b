#!/usr/bin/env bash
# Builds the stand-ins libcuda.so and libnvrtc.so: the emulation, with the kernels of a directory.
#
#     cuda/emulation/build.sh OUT_DIR [--sanitize] [-DNAME].. [--kernels DIR] [--objects DIR] [--program FILE]
#
#     --sanitize      with AddressSanitizer and UndefinedBehaviorSanitizer; the program that loads it needs LD_PRELOAD, see README.md
#     --kernels DIR   the .cu files, by default ../kernels; each is compiled in a namespace of its own, as NVRTC compiles it alone
#     --objects DIR   where compiled files are kept, by default OUT_DIR/objects; may be shared
#     --program FILE  also the program of one source file, OUT_DIR/NAME for NAME.cpp
#
# Compiles only what has changed, says nothing if it succeeds, may be called by several programs at once. Exit 3, with one line, where there
# is no C++ compiler ($CXX, g++, clang++).
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)

usage() {
    echo "usage: build.sh OUT_DIR [--sanitize] [-DNAME].. [--kernels DIR] [--objects DIR] [--program FILE]" >&2
    exit 2
}
out='' kernels=$here/../kernels objects='' program='' sanitize='' defines=()
while [ $# -gt 0 ]; do
    case $1 in
    --sanitize) sanitize=1 ;;
    --kernels) kernels=${2?} && shift ;;
    --objects) objects=${2?} && shift ;;
    --program) program=${2?} && shift ;;
    -D*) defines+=("$1") ;;
    -*) usage ;;
    *) [ -z "$out" ] || usage && out=$1 ;;
    esac
    shift
done
[ -n "$out" ] || usage
mkdir -p "$out"
out=$(cd "$out" && pwd) kernels=$(cd "$kernels" && pwd) objects=${objects:-$out/objects}
mkdir -p "$objects"

compiler=''
for candidate in ${CXX:-} g++ clang++; do
    if command -v "$candidate" >/dev/null; then
        compiler=$candidate
        break
    fi
done
if [ -z "$compiler" ]; then
    echo "emulation: no C++ compiler (\$CXX, g++, clang++)" >&2
    exit 3
fi

# fma in the hardware where there is one, else in the library: the same values. No contraction: what a kernel wants fused it says.
flags=(-std=c++20 -O2 -g1 -fPIC -fvisibility=hidden -ffp-contract=off -fno-strict-aliasing -pthread
    -Wall -Wextra -Wno-unknown-pragmas -Wno-unused-function -Wno-unused-parameter "${defines[@]}")
folders=("-I$kernels" "-I$here/../kernels" "-I$here")
if grep -qw fma /proc/cpuinfo 2>/dev/null; then
    flags+=(-mfma -mavx2)
fi
if [ -n "$sanitize" ]; then
    flags+=("-fsanitize=address,undefined" -fno-sanitize-recover=undefined -fno-omit-frame-pointer)
fi

exec 9>"$out/lock"
flock 9

# Up to date?
inputs=$({
    "$compiler" --version
    echo "${flags[@]}"
    {
        find "$here" "$here/../kernels" "$kernels" -maxdepth 1 -type f -regex '.*\.\(cu\|cuh\|hpp\|cpp\|sh\)' -print0
        [ -z "$program" ] || printf '%s\0' "$program"
    } | LC_ALL=C sort -zu | xargs -0 sha256sum
} | sha256sum)
if [ -f "$out/inputs" ] && [ "$(cat "$out/inputs")" = "$inputs" ] && [ -f "$out/libcuda.so" ] && [ -f "$out/libnvrtc.so" ]; then
    exit 0
fi
rm -f "$out/inputs"

# A unit for each .cu file: the file in a namespace, and what the macros cannot read, its kernels' launch bounds. They are read from what the
# preprocessor makes of the file, which must bear the contract: extern "C" __global__ void __launch_bounds__(N) name(..), then KERNEL(name).
units=$out/units
rm -rf "$units"
mkdir -p "$units"
for source in "$kernels"/*.cu; do
    [ -f "$source" ] || continue
    file=$(basename "$source")
    unit=$units/$file.cpp
    text=$("$compiler" -E -P -x c++ -DEMULATION_SCAN "${flags[@]}" "${folders[@]}" "$source" | tr '\n' ' ')
    kernel='extern *"C" *__global__ *void *__launch_bounds__ *\((([^()]|\([^()]*\))*)\) *([A-Za-z_0-9]+) *\('
    {
        echo '#include "prelude.cuh"'
        echo "namespace ${file//[^A-Za-z0-9]/_} {"
        echo "#include \"$file\""
        grep -oE "$kernel" <<<"$text" | sed -E "s/^$kernel\$/static ::emulation::Bounds bounds_of_\\3(\"\\3\", \"$file\", ::emulation::threads(\\1));/" || true
        echo '}'
    } >"$unit"
    if [ "$(grep -o '\b__global__\b' <<<"$text" | wc -l)" != "$(grep -c '::Bounds ' "$unit" || true)" ]; then
        echo "emulation: $file: a kernel that is not: extern \"C\" __global__ void __launch_bounds__(N) name(..)" >&2
        exit 1
    fi
    while read -r name; do
        if ! grep -qE "\\bKERNEL *\\( *$name *\\)" <<<"$text"; then
            echo "emulation: $file: no KERNEL($name)" >&2
            exit 1
        fi
    done < <(sed -nE 's/.*Bounds bounds_of_([A-Za-z_0-9]+).*/\1/p' "$unit")
done

# The object of a source is known by the compiler, the flags, and $2, what it depends on.
compile() {
    local source=$1 object
    object=$objects/$({
        "$compiler" --version
        echo "${flags[*]} $source"
        $2 "$source"
    } | sha256sum | cut -c1-32).o
    touch -c "$object" # what nobody uses for a week goes
    if [ ! -f "$object" ]; then
        "$compiler" -c -x c++ "${flags[@]}" "${folders[@]}" "$source" -o "$object.$BASHPID"
        mv "$object.$BASHPID" "$object"
    fi
    echo "$object" >"$units/$(basename "$source").object"
}
ours() { cat "$1" "$here"/*.hpp; }
preprocessed() { "$compiler" -E -x c++ "${flags[@]}" "${folders[@]}" "$1"; }

failed='' running=0
for source in "$here"/{fiber,driver,driver_memory,nvrtc}.cpp "$units"/*.cpp ${program:+"$program"}; do
    [ -f "$source" ] || continue
    if [ "$running" -ge 2 ]; then
        wait -n || failed=1
        running=$((running - 1))
    fi
    case $source in
    "$units"/*) compile "$source" preprocessed & ;;
    *) compile "$source" ours & ;;
    esac
    running=$((running + 1))
done
while [ "$running" -gt 0 ]; do
    wait -n || failed=1
    running=$((running - 1))
done
[ -z "$failed" ] || exit 1

# Linked aside and moved: who has the old one open keeps it. The soname is what a later dlopen("libcuda.so") finds. Only the interface is
# exported: two libraries of C++ in one process must not share their insides.
echo '{ global: cu*; nvrtc*; foof_*; local: *; };' >"$units/exports"
link() {
    local name=$1
    shift
    "$compiler" "${flags[@]}" -o "$out/$name.new" "$@" -ldl
    mv "$out/$name.new" "$out/$name"
}
library() {
    link "$1" -shared -Wl,-soname,"$1" -Wl,--version-script,"$units/exports" "${@:2}"
}
object_of() {
    cat "$units/$(basename "$1").object"
}
parts=()
for source in "$here"/{fiber,driver,driver_memory}.cpp "$units"/*.cpp; do
    parts+=("$(object_of "$source")")
done
library libcuda.so "${parts[@]}"
library libnvrtc.so "$(object_of nvrtc.cpp)"
if [ -n "$program" ]; then
    link "$(basename "$program" .cpp)" "$(object_of "$program")"
fi
find "$objects" -name '*.o' -mtime +7 -delete
echo "$inputs" >"$out/inputs"
