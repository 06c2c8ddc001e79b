#!/usr/bin/env bash
# The tests are tested: applies each wrong line of tests/mutants.txt to a copy of the tree and demands that the test named there
# fails. A line that has changed, or a mutant that does not compile, is an error: neither says anything about the tests.
#
#     tests/mutants.sh             all of them: a build each, half a minute or more
#     tests/mutants.sh WORDS..     those whose name contains one of WORDS
#     tests/mutants.sh --check     only that every line still occurs, and that the check refuses one that does not
#
# The copy and its build are kept in FOOF_MUTANTS_TARGET, by default target/mutants, so that a second run builds less.
set -euo pipefail
cd "$(dirname "$0")/.."

target=${FOOF_MUTANTS_TARGET:-$PWD/target/mutants}
tree=$target/tree
list=tests/mutants.txt
# A mutant may loop for ever: this many seconds after its build it counts as caught.
limit=300

# Writes file $1 with the only line that is $2 replaced by $3, its indentation kept; fails if that line occurs never or twice.
mutate() {
    line=$2 into=$3 awk '
        {
            text = $0
            sub(/^[ \t]+/, "", text)
            if (text == ENVIRON["line"]) {
                found++
                print substr($0, 1, length($0) - length(text)) ENVIRON["into"]
            } else print
        }
        END { if (found != 1) { print "the line occurs " found + 0 " times" > "/dev/stderr"; exit 1 } }
    ' "$1"
}

# Calls $1 with name, file, line, into, test of each mutant.
each() {
    local key rest name='' file='' line='' into=''
    while read -r key rest; do
        case $key in
        mutant) name=$rest ;;
        file) file=$rest ;;
        line) line=$rest ;;
        into) into=$rest ;;
        test) "$1" "$name" "$file" "$line" "$into" "$rest" ;;
        '' | '#') ;;
        *) echo "mutants: $list: no such field: $key" >&2 && return 1 ;;
        esac
    done < <(sed 's/^#.*//' "$list")
}

failures=0
checked=0
complain() {
    failures=$((failures + 1))
    echo "mutants: $*" >&2
}

check_one() {
    checked=$((checked + 1))
    mutate "$2" "$3" "$4" >/dev/null || complain "'$1': $2 has changed: $3"
    [ "$3" != "$4" ] || complain "'$1' changes nothing"
}

check() {
    each check_one
    if mutate "$list" 'no such line' 'anything' >/dev/null 2>&1; then
        complain 'a line that does not occur was accepted'
    fi
    echo "mutants: the lines of $checked mutants occur"
}

# The tree as git has it, with what is not committed and without what is deleted; files that are the same keep their time, so that
# cargo builds less.
copy_tree() {
    local file
    git ls-files -co --exclude-standard | LC_ALL=C sort | while read -r file; do
        [ ! -f "$file" ] || echo "$file"
    done >"$target/files"
    (cd "$tree" && find . -type f -printf '%P\n') | LC_ALL=C sort | LC_ALL=C comm -13 "$target/files" - | while read -r file; do
        rm "$tree/$file"
    done
    while read -r file; do
        cmp -s "$file" "$tree/$file" && continue
        mkdir -p "$tree/$(dirname "$file")"
        cp "$file" "$tree/$file"
    done <"$target/files"
}

run_test() {
    local binary=${1%% *} name=${1#* }
    local where=(--test "$binary")
    [ "$binary" = lib ] && where=(--lib)
    (cd "$tree" && CARGO_TARGET_DIR="$target" cargo test --quiet -p foof "${where[@]}" --no-run) >"$target/log" 2>&1 || return 2
    (cd "$tree" && CARGO_TARGET_DIR="$target" timeout "$limit" cargo test --quiet -p foof "${where[@]}" -- "$name") >"$target/log" 2>&1 || return 1
    # A name that matches no test fails nothing.
    grep -qE '^test result: ok\. [1-9]' "$target/log"
}

wanted=()
selected() {
    local word
    [ ${#wanted[@]} -eq 0 ] && return 0
    for word in "${wanted[@]}"; do
        case $1 in *"$word"*) return 0 ;; esac
    done
    return 1
}

# Tests that pass without any mutant: only they can tell one. All of them first, so that the tree is built once for them.
declare -A sound
try_sound() {
    local name=$1 test=$5
    selected "$name" && [ -z "${sound[$test]:-}" ] || return 0
    if run_test "$test" </dev/null; then
        sound[$test]=yes
    else
        sound[$test]=no
        complain "without any mutant, '$test' does not pass: $(tail -n 3 "$target/log")"
    fi
}

try_one() {
    local name=$1 file=$2 line=$3 into=$4 test=$5 result=0
    selected "$name" && [ "${sound[$test]}" = yes ] || return 0
    checked=$((checked + 1))
    cp "$tree/$file" "$target/original"
    mutate "$target/original" "$line" "$into" >"$tree/$file"
    run_test "$test" </dev/null || result=$?
    case $result in
    0) complain "'$name' survives $test" ;;
    1) echo "caught: $name" ;;
    *) complain "'$name' does not compile: $(grep -m 1 -A 4 '^error' "$target/log")" ;;
    esac
    cp "$target/original" "$tree/$file"
}

check
if [ "$failures" -eq 0 ] && [ "${1:-}" != --check ]; then
    checked=0
    wanted=("$@")
    mkdir -p "$tree"
    copy_tree
    each try_sound
    each try_one
    [ "$checked" -gt 0 ] || complain "none tried: no name contains $*"
    echo "mutants: $checked tried, $failures complaints"
fi
[ "$failures" -eq 0 ]
