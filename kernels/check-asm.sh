#!/usr/bin/env bash
# Compiles foof-kernels to assembly and reads it: a microkernel that calls something (a missed inline) or keeps a vector on
# the stack (a spill) is right but several times too slow, and no test would notice.
#
#     kernels/check-asm.sh            check, and check that the check refuses broken assembly
#     kernels/check-asm.sh FILE.s     check this assembly (Intel syntax, v0 symbols) only
#
# Works where rustc does; it needs no disassembler. Target folder: FOOF_ASM_TARGET, by default target/asm.
set -euo pipefail
cd "$(dirname "$0")/.."

target=${FOOF_ASM_TARGET:-target/asm}
host=$(rustc -vV | sed -n 's/^host: //p')

# What the tables of kernels/src/engine/kernels.rs hold: instruction set, rows and vectors of its largest register tile, register.
# Each has one microkernel for every power of two up to its rows, times every number of vectors and kind of operands, for f32 and f64.
tables='avx512 8 3 zmm
avx2 4 3 ymm
portable 4 2 -'

# Reads assembly, prints a table of microkernels, and lists on stderr what is refused.
inspect() {
    awk -v tables="$tables" '
    function refuse(why) { refused++; print "refused: " name ": " why > "/dev/stderr" }

    # "..6avx51211microkernelKj8_Kj3_Kh0_.." in module 3f32: f32 avx512 8x3 packed. A second number "B.." repeats the first; the third is what kind of operands.
    function parse(symbol,    rest) {
        type = symbol ~ /7kernels3f32/ ? "f32" : "f64"
        isa = symbol ~ /6avx512/ ? "avx512" : symbol ~ /4avx2/ ? "avx2" : symbol ~ /8portable/ ? "portable" : "unknown"
        rest = symbol
        sub(/.*11microkernelKj/, "", rest)
        rows = rest + 0
        sub(/^[0-9]*_K/, "", rest)
        vectors = rest ~ /^B/ ? rows : substr(rest, 2) + 0
        match(rest, /_Kh[0-9]_/)
        name = type " " isa " " rows "x" vectors " " kinds[substr(rest, RSTART + 3, 1) + 0]
    }

    # The innermost loop with the most arithmetic: from a label to the nearest jump back to it.
    function finish(    i, j, k, from, arithmetic, best_from, best_to, best, loads, stack, width, steps, flat) {
        width = register[isa]
        for (i = 1; i <= count; i++) {
            # Calls, and jumps out of the function, which are calls in tail position.
            if (line[i] ~ /^call/ || line[i] ~ /^jmp[ \t]+[^.]/) refuse("calls: " line[i])
            if (isa == "portable") continue
            stack = line[i] ~ /\[[^]]*rsp/ || (frame && line[i] ~ /\[[^]]*rbp/)
            if (stack && line[i] ~ /[xyz]mm/) refuse("spills: " line[i])
        }
        best = 0
        for (i = 1; i <= count; i++) {
            if (line[i] !~ /^j[a-z]+[ \t]+\.L/) continue
            k = line[i]; sub(/^j[a-z]+[ \t]+/, "", k)
            if (!(k in label) || label[k] > i) continue
            from = label[k]; arithmetic = 0; flat = 1
            for (j = from; j < i; j++) {
                if (line[j] ~ /^v?fmadd[0-9]+p[sd]|^v?mulp[sd]/) arithmetic++
                # A jump back inside means an outer loop.
                if (line[j] ~ /^j[a-z]+[ \t]+\.L/) {
                    k = line[j]; sub(/^j[a-z]+[ \t]+/, "", k)
                    if (k in label && label[k] <= j && label[k] >= from) flat = 0
                }
            }
            if (flat && arithmetic > best) { best = arithmetic; best_from = from; best_to = i }
        }
        loads = 0; arithmetic = 0
        for (j = best_from; best && j < best_to; j++) {
            # A prefetch is a hint, not a load that an FMA waits for.
            if (line[j] ~ /ptr \[/ && line[j] !~ /^prefetch/) loads++
            if (isa != "portable" && line[j] ~ /\[[^]]*rsp/) refuse("the stack in the inner loop: " line[j])
            if (line[j] ~ /^v?mulp[sd]/ && isa == "portable") arithmetic++
            if (line[j] ~ /^vfmadd[0-9]+p[sd]/ && line[j] ~ width) arithmetic++
        }
        steps = arithmetic / (rows * vectors)
        if (isa != "portable") {
            if (arithmetic == 0) refuse("no loop of FMAs on " width)
            else if (steps != int(steps)) refuse(arithmetic " FMAs in the loop are no multiple of " rows * vectors)
            # V vectors and M broadcasts for each step of depth; fewer only if the compiler keeps some, never more.
            if (loads > steps * (rows + vectors)) refuse(loads " memory operands in the loop for " steps " steps")
        }
        printf "%-25s %13d %15d %15d %11.4g\n", name, instructions, arithmetic, loads, steps
        seen[name]++
        found++
    }

    BEGIN {
        n = split(tables, t, "\n")
        kinds[0] = "packed"; kinds[1] = "rows"; kinds[2] = "runs"
        for (i = 1; i <= n; i++) {
            split(t[i], f, " ")
            register[f[1]] = f[4]
            for (v = 1; v <= f[3]; v++) for (r = 1; r <= f[2]; r *= 2) {
                for (k in kinds) { expected["f32 " f[1] " " r "x" v " " kinds[k]]; expected["f64 " f[1] " " r "x" v " " kinds[k]] }
            }
        }
        print "tile                       instructions    FMAs in loop   loads in loop       steps"
    }
    /^_R[A-Za-z0-9_]*7kernels3f(32|64)[A-Za-z0-9_]*11microkernelK[A-Za-z0-9_]*:/ {
        parse($1); inside = 1; count = 0; instructions = 0; frame = 0; split("", label)
        next
    }
    !inside { next }
    /^\.Lfunc_end/ { finish(); inside = 0; next }
    /^\.LBB[0-9_]+:/ { k = $1; sub(/:.*/, "", k); label[k] = count + 1; next }
    /^[ \t]*\./ || /^[ \t]*#/ || /^[ \t]*$/ || /:$/ { next }
    {
        gsub(/^[ \t]+|[ \t]+$/, "")
        sub(/[ \t]+#.*$/, "")
        line[++count] = $0
        instructions++
        if ($0 ~ /^mov[ \t]+rbp, rsp/) frame = 1
    }
    END {
        for (k in expected) if (!(k in seen)) { name = k; refuse("no such microkernel in the assembly") }
        for (k in seen) if (!(k in expected)) { name = k; refuse("not in the list of tables of this script") }
        if (!found) { name = "microkernels"; refuse("none found") }
        printf "%d microkernels, %d refusals\n", found, refused
        exit refused > 0
    }' "$1"
}

# Assembly broken on purpose must be refused: a call, a spill, a folded reload, and no microkernels at all.
self_test() {
    local broken="$target/broken.s" first='^_R.*7kernels3f32.*6avx51211microkernelKj8_Kj3_Kh0_.*:$'
    try() {
        if cmp -s "$1" "$broken"; then
            echo "self-test: the edit '$2' changed nothing" >&2
            return 1
        fi
        if inspect "$broken" >/dev/null 2>&1; then
            echo "self-test: '$2' was not refused" >&2
            return 1
        fi
        echo "self-test: '$2' is refused"
    }
    insert() {
        sed "/$first/a\\
	$2" "$1" >"$broken"
        try "$1" "$2"
    }
    insert "$1" 'call	memcpy@PLT'
    insert "$1" 'jmp	elsewhere'
    insert "$1" 'vmovups	zmmword ptr [rsp + 64], zmm3'
    insert "$1" 'vfmadd231ps	zmm3, zmm4, zmmword ptr [rsp - 128]'
    sed 's/11microkernel/11macrokernel/' "$1" >"$broken"
    try "$1" 'no microkernels'
    sed "/$first/,/^.Lfunc_end/s/vfmadd231ps.*/nop/" "$1" >"$broken"
    try "$1" 'no FMAs'
}

if [ $# -gt 0 ]; then
    inspect "$1"
    exit
fi
case $host in
x86_64-*) ;;
*)
    echo "check-asm: skipped: on $host only the portable kernels are compiled, and this script reads x86-64"
    exit 0
    ;;
esac
# Without its fingerprint the crate is compiled again, and the assembly written again, even if nothing has changed.
rm -rf "$target"/release/deps/foof_kernels*.s "$target"/release/.fingerprint/foof-kernels-*
cargo rustc --quiet -p foof-kernels --release --lib --target-dir "$target" -- \
    --emit asm -C codegen-units=1 -C symbol-mangling-version=v0 -C llvm-args=-x86-asm-syntax=intel
assembly=$(ls "$target"/release/deps/foof_kernels*.s)
inspect "$assembly"
self_test "$assembly"
