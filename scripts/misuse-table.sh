#!/bin/sh
# SPDX-License-Identifier: MIT
# Prints the tables of misuse of docs/memory.md: each misuse on each engine at each hardening level.
set -eu
cd "$(dirname "$0")/.."
out=build/misuse
mkdir -p "$out"
for level in 0 1 2 3; do
    ${HOSTCC:-gcc} -std=gnu11 -O1 -g -Wall -Wextra -Werror -DMM_HARDEN=$level -DMM_GLOBAL_ENGINE=byte_tlsf_ops \
        -Imm/include -Imm -Itests/host -o "$out/misuse-$level" tests/misuse/misuse.c tests/host/mm_port_host.c mm/*.c \
        -lpthread
    "$out/misuse-$level" >"$out/level-$level.txt"
done
paste "$out"/level-0.txt "$out"/level-1.txt "$out"/level-2.txt "$out"/level-3.txt | awk -F '\t' '
    $1 != engine {
        engine = $1
        printf "%s**%s**\n\n| misuse | level 0 | level 1 | level 2 | level 3 |\n| --- | --- | --- | --- | --- |\n",
            (NR > 1 ? "\n" : ""), engine
    }
    { printf "| %s | %s | %s | %s | %s |\n", $2, $3, $6, $9, $12 }'
