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
# A program for another number of CPUs than the library's: it must not link, and say why.
archive=$(ls -t build/lib/host/*/libmica-mm.a | head -n 1)
${HOSTCC:-gcc} -Imm/include -DMM_MAX_CPUS=63 -o build/lib/host/mismatch tests/embed/embed.c tests/embed/port_calls.c \
	tests/embed/console_host.c "$archive" 2>&1 | grep -q 'undefined reference.*mm_library_of_harden_._debug_._cpus_63'
result $? "a program with other parameters than its library links"

echo "embedding: $passed passed, $failed failed"
[ "$failed" -eq 0 ]
