#!/bin/sh
# SPDX-License-Identifier: MIT
# The embedding of docs/embedding.md: is it the file that is built, is it short, and does it run?
# And do the faults that it reports name their caller? `caller` says so.
# usage: embed-test.sh EXPECTED PROGRAM...; a program is run by qemu-ARCH when it is build/.../ARCH/embed
set -u
cd "$(dirname "$0")/.." || exit 1
expected=$1
shift
passed=0 failed=0

result() {
	if [ "$1" -eq 0 ]; then
		passed=$((passed + 1))
	else
		failed=$((failed + 1))
		echo "FAIL: $2"
	fi
}

shown() {
	awk -v want="$1" '/^```c$/ { n++; on = 1; next } /^```$/ { on = 0 } on && n == want' docs/embedding.md
}

shown 1 | cmp -s - tests/embed/port.h
result $? "docs/embedding.md does not show tests/embed/port.h"
shown 2 | cmp -s - tests/embed/embed.c
result $? "docs/embedding.md does not show tests/embed/embed.c"
[ "$(cat tests/embed/port.h tests/embed/embed.c | grep -c .)" -lt 40 ]
result $? "the embedding has 40 lines or more"

for program in "$@"; do
	arch=$(basename "$(dirname "$program")")
	run=""
	[ "$arch" = host ] || run="qemu-$arch"
	if [ -n "$run" ] && ! command -v "$run" > /dev/null; then
		echo "SKIP: $program ($run is not here)"
		continue
	fi
	case $program in
	*/caller*) wanted="the caller is named" ;;
	*) wanted="hello from a block of $expected" ;;
	esac
	[ "$(timeout 30 $run "$program")" = "$wanted" ]
	result $? "$program"
done
echo "embedding: $passed passed, $failed failed"
[ "$failed" -eq 0 ]
