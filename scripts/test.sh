#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# All tests, host and emulated; called by `make test`. Ends in "N passed, N failed"; the exit status
# is non-zero when anything failed. Logs are in build/test-logs. As many steps run at a time as there
# are CPUs; those of one job run in order.
set -u
cd "$(dirname "$0")/.."
cpus=$(nproc)
logs=build/test-logs
counts=$logs/counts # a line "passed failed" for each step
mkdir -p "$logs"
: >"$counts"

# step NAME COMMAND...: one test of its own. What it prints comes in one piece.
step() {
    local name=$1 start=$SECONDS log said
    shift
    log=$logs/${name//[^a-z0-9]/-}.log
    if "$@" >"$log" 2>&1 </dev/null; then
        echo 1 0 >>"$counts"
        said=$(printf 'ok   %-38s %4d s' "$name" $((SECONDS - start)))
    else
        echo 0 1 >>"$counts"
        said=$(printf 'FAIL %-38s %4d s\n' "$name" $((SECONDS - start)) && tail -n 30 "$log" | sed 's/^/    | /')
    fi
    printf '%s\n' "$said"
}

# A second build says nothing, for it does nothing.
nothing_rebuilt() {
    local said
    said=$(make kernel "$@") && [ -z "$said" ] || { echo "$said"; return 1; }
}

# An image without the tests of dma/ is linked at the same place, and so is the whole one after it.
source_is_gone() {
    make kernel "$@" TSRC_dma= | grep ' LD ' && make kernel "$@" | grep ' LD '
}

# In one line, and before anything is built.
refused() {
    local wrong
    for wrong; do
        make help "$wrong" 2>&1 | grep "^Makefile:.* $wrong: " || { echo "$wrong is taken"; return 1; }
    done
}

# An archive without .git has the same sources.
includes() {
    local said
    said=$(python3 scripts/check_includes.py) &&
        [ "$(GIT_DIR=/ python3 scripts/check_includes.py)" = "$said" ] || { echo "$said"; return 1; }
}

# A host run counts its cmocka tests one by one.
host() {
    local name=$1 log n bad
    log=$logs/${name//[^a-z0-9]/-}.log
    step "$@"
    n=$(grep -c '^\[       OK \]' "$log")
    bad=$(grep -c '^\[  FAILED  \] [a-z]*/' "$log")
    echo "$n 0" >>"$counts"
    echo "     $name: $n self-tests passed on the host, $bad failed"
}

builds() {
    local arch=$1 engine bits
    for engine in tlsf slab buddy; do
        step "build $arch $engine" make kernel ARCH="$arch" ALLOC=$engine
    done
    step "build $arch clang" make kernel ARCH="$arch" LLVM=1
    step "build $arch debug" make kernel ARCH="$arch" DEBUG=1
    step "build $arch without tests" make kernel size-check ARCH="$arch" TESTS=0
    step "what is gone is not linked, $arch" source_is_gone ARCH="$arch"
    step "nothing is rebuilt, $arch" nothing_rebuilt ARCH="$arch"
    step "symbols $arch" make check-symbols ARCH="$arch"
    shift
    for bits; do
        step "build $arch Sv$bits" make kernel ARCH="$arch" PAGING="$bits"
    done
}

# What is built once for several steps.
host_default() {
    host "host tests, hardening 1" make host-test
    step "every allocation fails" make inject-test
    step "device trees against libfdt" make fdt-test FDT_MUTATIONS=100000
}

# job COMMAND...: in the background, when a CPU is free.
job() {
    while [ "$(jobs -rp | wc -l)" -ge "$cpus" ]; do
        wait -n
    done
    "$@" &
}

job step "includes" includes
job step "wrong variables are refused" refused ARCH=foo HARDEN=4 LIB_ARCHES=foo PRELOAD_ENGINES=foo \
    MAX_CPUS=0 MAX_CPUS=65 MAX_CPUS=abc FUZZ_SECONDS=0 FUZZ_SECONDS=x
job host_default
job builds aarch64
job builds riscv64 39 48
for level in 0 2 3; do
    job host "host tests, hardening $level" make host-test HARDEN=$level
done
job host "host tests, debug" make host-test DEBUG=1 HB=build/host-debug
job host "host tests, clang" make host-test HOSTCC=clang HB=build/host-clang
job host "host tests, threads under TSan" make host-test HOST_SAN=thread FILTER='mm/*threads*'
job step "worst operations" make worst-test
job step "library and its embedding" make embed-test
job step "programs over the preloaded malloc" make preload-test
job step "fuzzers, 3 s each" make fuzz-mm FUZZ_SECONDS=3
job step "table of misuse" make misuse-test
job step "benchmark tools" make bench-test
wait
if [ "${BOOT:-yes}" != no ]; then
    rm -f build/boot.count
    python3 scripts/boot_matrix.py || true
    if [ -f build/boot.count ]; then
        cat build/boot.count >>"$counts"
    else
        echo 0 1 >>"$counts" # the matrix did not come to its end
    fi
fi
awk '{ passed += $1; failed += $2 } END { print passed + 0 " passed, " failed + 0 " failed"; exit failed != 0 }' "$counts"
