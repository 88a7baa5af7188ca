#!/bin/sh
# SPDX-License-Identifier: MIT
# harden-cost.sh [--write]: instructions of a call (an allocation or a free, half of each) of the
# global allocator over each engine at each hardening level, counted by callgrind on tests/cost.
# Prints the table of docs/memory.md; with --write puts it there.
set -eu
cd "$(dirname "$0")/.."
out=build/cost
doc=docs/memory.md
mkdir -p "$out"

build() { # ENGINE LEVEL: the library as one unit, as the kernel has it, and the workload apart
    flags="-std=gnu11 -O2 -g -I$PWD/mm/include -DMM_HARDEN=$2 -DMM_FAST_BITS=1 -DMM_MAX_CPUS=1
        -DMM_GLOBAL_ENGINE=byte_$1_ops -DMM_PORT_INLINE=\"../../../bench/plugins/port_bench.h\""
    root=$PWD
    mkdir -p "$out/objects"
    # shellcheck disable=SC2086
    (cd "$out/objects" && gcc $flags -flto -c "$root"/mm/*.c)
    gcc -O2 -g -flto=1 -flto-partition=one -flinker-output=nolto-rel -r -nostdlib -o "$out/$1-$2.o" "$out"/objects/*.o
    # shellcheck disable=SC2086
    gcc $flags -o "$out/$1-$2" tests/cost/cost.c "$out/$1-$2.o"
}

count() { # ENGINE LEVEL WORKLOAD: instructions of a call
    calls=$(valgrind --tool=callgrind --callgrind-out-file="$out/callgrind" --collect-atstart=no \
        --toggle-collect=global_alloc_bytes --toggle-collect=global_dealloc_bytes \
        "$out/$1-$2" "$3" 2>"$out/log")
    awk -v calls="$calls" '/^(summary|totals):/ { printf "%.0f", $2 / calls; exit }' "$out/callgrind"
}

{
    echo
    for workload in pairs churn; do
        [ $workload = pairs ] && echo "**64 bytes, allocated and freed at once, beside 1000 live blocks**" ||
            echo "**One of 1000 live blocks (1 to 256 bytes, a few up to 8 KiB) replaced at random**"
        printf '\n| engine | level 0 | level 1 | level 2 | level 3 |\n| --- | --- | --- | --- | --- |\n'
        for engine in tlsf slab buddy; do
            row="| $engine |"
            for level in 0 1 2 3; do
                [ $workload = churn ] || build $engine $level
                row="$row $(count $engine $level $workload) |"
            done
            echo "$row"
        done
        echo
    done
} >"$out/table.md"

if [ "${1:-}" != --write ]; then
    cat "$out/table.md"
    exit 0
fi
awk -v table="$out/table.md" '
    /<!-- cost table: end -->/ { inside = 0 }
    !inside { print }
    /<!-- cost table: begin -->/ { inside = 1; while ((getline row < table) > 0) print row }' "$doc" >"$out/document.md"
cp "$out/document.md" "$doc"
