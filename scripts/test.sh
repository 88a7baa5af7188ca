#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# All tests, host and emulated; called by `make test`. Ends in "N passed, N failed"; the exit status
# is non-zero when anything failed. Logs are in build/test-logs.
set -u
cd "$(dirname "$0")/.."
jobs=-j$(nproc)
logs=build/test-logs
mkdir -p "$logs"
passed=0
failed=0

# step NAME COMMAND...: one test of its own
step() {
    local name=$1 start=$SECONDS log
    shift
    log=$logs/${name//[^a-z0-9]/-}.log
    if "$@" >"$log" 2>&1; then
        passed=$((passed + 1))
        printf 'ok   %-38s %4d s\n' "$name" $((SECONDS - start))
    else
        failed=$((failed + 1))
        printf 'FAIL %-38s %4d s\n' "$name" $((SECONDS - start))
        tail -n 30 "$log" | sed 's/^/    | /'
    fi
}

# A second build says nothing, for it does nothing.
nothing_rebuilt() {
    local said
    said=$(make kernel "$@") && [ -z "$said" ] || { echo "$said"; return 1; }
}

# A host run counts its cmocka tests one by one.
host() {
    local name=$1 log
    shift
    log=$logs/${name//[^a-z0-9]/-}.log
    step "$name" "$@"
    local n bad
    n=$(grep -c '^\[       OK \]' "$log")
    bad=$(grep -c '^\[  FAILED  \] [a-z]*/' "$log")
    passed=$((passed + n))
    printf '     %s\n' "$n self-tests passed on the host, $bad failed"
}

step "includes" python3 scripts/check_includes.py
for arch in riscv64 aarch64; do
    for engine in tlsf slab buddy; do
        step "build $arch $engine" make "$jobs" kernel ARCH=$arch ALLOC=$engine
    done
    step "build $arch clang" make "$jobs" kernel ARCH=$arch LLVM=1
    step "build $arch without tests" make "$jobs" kernel size-check ARCH=$arch TESTS=0
    step "nothing is rebuilt, $arch" nothing_rebuilt ARCH=$arch
    step "symbols $arch" make check-symbols ARCH=$arch
done
for bits in 39 48; do
    step "build riscv64 Sv$bits" make "$jobs" kernel ARCH=riscv64 PAGING=$bits
done
step "worst operations of TLSF" make "$jobs" worst-test
for level in 0 1 2 3; do
    host "host tests, hardening $level" make "$jobs" host-test HARDEN=$level
done
step "every allocation fails" make "$jobs" inject-test
host "host tests, clang" make "$jobs" host-test HOSTCC=clang HB=build/host-clang
host "host tests, threads under TSan" make "$jobs" host-test HOST_SAN=thread FILTER='mm/*threads*'
step "library and its embedding" make "$jobs" embed-test
step "programs over the preloaded malloc" make "$jobs" preload-test
step "fuzzers, 3 s each" make fuzz-mm FUZZ_SECONDS=3
step "table of misuse" make misuse-test
step "benchmark tools" make "$jobs" bench-test
step "device trees against libfdt" make fdt-test FDT_MUTATIONS=100000
if [ "${BOOT:-yes}" != no ]; then
    rm -f build/boot.count
    python3 scripts/boot_matrix.py || true
    p=0 f=1 # unless the matrix came to its end
    [ ! -f build/boot.count ] || read -r p f <build/boot.count
    passed=$((passed + p))
    failed=$((failed + f))
fi
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
