#!/bin/sh
# SPDX-License-Identifier: MIT
# misuse-table.sh [--check|--write]: the tables of misuse of docs/memory.md, which are each misuse
# committed on each engine at each hardening level. Prints them; with --write puts them into the
# document, with --check fails when the document says anything else. In any case it fails when a
# level does not keep what it promises (tests/misuse/misuse.c).
set -eu
cd "$(dirname "$0")/.."
out=build/misuse
doc=docs/memory.md
mkdir -p "$out"

broken=
for level in 0 1 2 3; do
    ${HOSTCC:-gcc} -std=gnu11 -O1 -g -Wall -Wextra -Werror -DMM_HARDEN=$level -DMM_GLOBAL_ENGINE=byte_tlsf_ops \
        -Imm/include -Imm -Itests/host -o "$out/misuse-$level" tests/misuse/misuse.c tests/host/mm_port_host.c mm/*.c \
        -lpthread
    "$out/misuse-$level" >"$out/level-$level.txt" || broken="$broken $level"
done
paste "$out"/level-0.txt "$out"/level-1.txt "$out"/level-2.txt "$out"/level-3.txt | awk -F '\t' '
    $1 != engine {
        engine = $1
        printf "\n**%s**\n\n| misuse | level 0 | level 1 | level 2 | level 3 |\n| --- | --- | --- | --- | --- |\n",
            engine
    }
    { printf "| %s | %s | %s | %s | %s |\n", $2, $3, $6, $9, $12 }
    END { print "" }' >"$out/table.md"

# The document with the table in its place.
awk -v table="$out/table.md" '
    /<!-- misuse table: end -->/ { inside = 0 }
    !inside { print }
    /<!-- misuse table: begin -->/ { inside = 1; while ((getline row < table) > 0) print row }' "$doc" >"$out/document.md"
case ${1:-} in
--write) cp "$out/document.md" "$doc" ;;
--check)
    diff -u "$doc" "$out/document.md" || {
        echo "misuse-table: $doc does not say what happens; scripts/misuse-table.sh --write mends it" >&2
        broken="$broken document"
    }
    ;;
*) cat "$out/table.md" ;;
esac
[ -z "$broken" ] || { echo "misuse-table: wrong:$broken" >&2; exit 1; }
