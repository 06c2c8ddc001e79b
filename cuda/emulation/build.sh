#!/usr/bin/env bash
# Builds the stand-ins libcuda.so and libnvrtc.so: the emulation, with the kernels of a directory.
#
#     cuda/emulation/build.sh OUT_DIR [--sanitize] [-DNAME].. [--kernels DIR] [--objects DIR]
#
#     --sanitize      with AddressSanitizer and UndefinedBehaviorSanitizer; the program that loads it needs LD_PRELOAD, see README.md
#     --kernels DIR   the .cu files, by default ../kernels; each is compiled in a namespace of its own, as NVRTC compiles it alone
#     --objects DIR   where compiled files are kept, by default OUT_DIR/objects; may be shared
#
# Compiles only what has changed, says nothing if it succeeds, may be called by several programs at once. Exit 3, with one line, where there
# is no C++ compiler ($CXX, g++, clang++).
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)

usage() {
    echo "usage: build.sh OUT_DIR [--sanitize] [-DNAME].. [--kernels DIR] [--objects DIR]" >&2
    exit 2
}
out='' kernels=$here/../kernels objects='' sanitize='' defines=()
while [ $# -gt 0 ]; do
    case $1 in
    --sanitize) sanitize=1 ;;
    --kernels) kernels=${2?} && shift ;;
    --objects) objects=${2?} && shift ;;
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
    -Wall -Wextra -Wno-unknown-pragmas -Wno-unused-function -Wno-unused-parameter "-I$kernels" "-I$here/../kernels" "-I$here" "${defines[@]}")
if grep -qw fma /proc/cpuinfo 2>/dev/null; then
    flags+=(-mfma -mavx2)
fi
if [ -n "$sanitize" ]; then
    flags+=(-fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer)
fi

exec 9>"$out/lock"
flock 9

# Up to date?
inputs=$({
    "$compiler" --version
    echo "${flags[@]}"
    find "$here" "$kernels" -maxdepth 1 -type f \( -name '*.cu' -o -name '*.cuh' -o -name '*.hpp' -o -name '*.cpp' -o -name build.sh \) -print0 |
        LC_ALL=C sort -z | xargs -0 sha256sum
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
    text=$("$compiler" -E -P -x c++ -DEMULATION_SCAN "${flags[@]}" "$source" | tr '\n' ' ')
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
    for name in $(sed -nE 's/.*Bounds bounds_of_([A-Za-z_0-9]+).*/\1/p' "$unit"); do
        if ! grep -qE "\\bKERNEL *\\( *$name *\\)" <<<"$text"; then
            echo "emulation: $file: no KERNEL($name)" >&2
            exit 1
        fi
    done
done

# An object is known by what the preprocessor makes of its source.
compile() {
    local source=$1 hash object
    hash=$({
        "$compiler" --version
        echo "${flags[@]}"
        "$compiler" -E -x c++ "${flags[@]}" "$source"
    } | sha256sum | cut -c1-32)
    object=$objects/$hash.o
    if [ ! -f "$object" ]; then
        "$compiler" -c -x c++ "${flags[@]}" "$source" -o "$object.$$.$BASHPID"
        mv "$object.$$.$BASHPID" "$object"
    fi
    echo "$object" >"$units/$(basename "$source").object"
}

failed='' running=0
for source in "$here"/{fiber,driver,driver_memory,nvrtc}.cpp "$units"/*.cpp; do
    [ -f "$source" ] || continue
    if [ "$running" -ge 2 ]; then
        wait -n || failed=1
        running=$((running - 1))
    fi
    compile "$source" &
    running=$((running + 1))
done
while [ "$running" -gt 0 ]; do
    wait -n || failed=1
    running=$((running - 1))
done
[ -z "$failed" ] || exit 1

# Linked aside and moved: a program that has the old one open keeps it. The soname is what a later dlopen("libcuda.so") finds.
link() {
    local library=$1
    shift
    "$compiler" -shared "${flags[@]}" -Wl,-soname,"$library" -o "$out/$library.new" "$@"
    mv "$out/$library.new" "$out/$library"
}
nvrtc=$(cat "$units/nvrtc.cpp.object")
rm "$units/nvrtc.cpp.object"
link libnvrtc.so "$nvrtc"
link libcuda.so $(cat "$units"/*.object)
echo "$inputs" >"$out/inputs"
