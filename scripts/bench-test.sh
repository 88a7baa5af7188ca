#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Tests of the benchmark tools (make bench-test): what the recorder writes of calls that are known, that
# damaged traces are refused, that mistakes of an allocator are caught, that the counter is exact.
set -u
cd "$(dirname "$0")/.."
bin=$PWD/build/bench/host
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
failed=0

ok() { # NAME COMMAND...
    local name=$1
    shift
    if "$@" >"$tmp/out" 2>&1; then
        echo "ok   $name"
    else
        echo "FAIL $name"
        sed 's/^/     | /' "$tmp/out"
        failed=1
    fi
}

# says STATUS TEXT COMMAND...: ends in that status and says that text
says() {
    local status=$1 text=$2 said got
    shift 2
    said=$("$@" 2>&1)
    got=$?
    [ "$got" = "$status" ] && [[ $said == *"$text"* ]] && return 0
    printf 'status %s, expected %s; said:\n%s\nexpected:\n%s\n' "$got" "$status" "$said" "$text"
    return 1
}

gcc -O1 -g -fno-builtin -Wall -o "$tmp/calls" bench/test/calls.c -lpthread || exit 1
gcc -O1 -g -fno-builtin -Wall -o "$tmp/forks" tests/preload/forks.c || exit 1
gcc -O2 -g -fPIC -shared -fvisibility=hidden -Wall -Wextra -o "$tmp/broken.so" bench/test/broken.c || exit 1

# record CASE: traces $tmp/CASE.calls.PID.N.trace
record() { timeout 20 env MICA_TRACE="$tmp/$1" LD_PRELOAD="$bin/record.so" "$tmp/calls" "$1"; }

dump_is() { # FILE, and on stdin what is expected
    local expected
    expected=$(cat)
    diff <("$bin/tracetool" dump "$1") <(echo "$expected")
}

# --- The recorder ----------------------------------------------------------------

every_call() {
    record every && dump_is "$tmp"/every.calls.*.trace <<END
alloc 0 size 100 align 1
alloc 1 size 150 align 1
alloc 2 size 5000 align 1
free 0
free 1
alloc 1 size 140 align 1
alloc 0 size 128 align 64
alloc 3 size 10 align 4096
alloc 4 size 7 align 256
alloc 5 size 4000 align $(getconf PAGESIZE)
alloc 6 size $(getconf PAGESIZE) align $(getconf PAGESIZE)
alloc 7 size 33 align 1
alloc 8 size 5000000 align 1
free 7
alloc 7 size 1 align 1
free 7
free 2
free 1
free 0
free 3
free 4
free 5
free 6
end
free 8
END
}

odd_alignments() {
    record aligned && dump_is "$tmp"/aligned.calls.*.trace <<END
alloc 0 size 100 align 1
alloc 1 size 100 align 1
alloc 2 size 100 align 4
alloc 3 size 100 align 32
alloc 4 size 100 align 8192
alloc 5 size 100 align 2147483648
end
free 0
free 1
free 2
free 3
free 4
free 5
END
}

threads() {
    local pairs
    record threads || return 1
    pairs=$("$bin/tracetool" dump "$tmp"/threads.calls.*.trace | grep -c '^alloc .* size 4242 ')
    [ "$pairs" = 4000 ] || { echo "$pairs calls of 4000"; return 1; }
    says 0 '"foreign_frees": 0, "missed_frees": 0' "$bin/tracetool" info "$tmp"/threads.calls.*.trace
}

# The child's trace has the child's block alone; the parent's is not disturbed.
forked() { # PREFIX
    local n=0 trace
    for trace in "$tmp/$1".calls.*.trace; do
        case $("$bin/tracetool" dump "$trace") in
        $'alloc 0 size 11 align 1\nfree 0') n=$((n + 1)) ;;
        $'alloc 0 size 22 align 1\nfree 0')
            n=$((n + 10))
            says 0 '"foreign_frees": 1' "$bin/tracetool" info "$trace" || return 1
            ;;
        $'alloc 0 size 55 align 1\nend\nfree 0') n=$((n + 100)) ;;
        *) n=$((n + 1000)) ;;
        esac
    done
    [ "$n" = "$2" ] || { echo "code $n, expected $2"; return 1; }
}

fork_case() { record fork && forked fork 11; }
exec_case() { record exec && forked exec 111; }

killed() {
    (record killed) 2>/dev/null
    dump_is "$tmp"/killed.calls.*.trace <<END
alloc 0 size 66 align 1
end
free 0
END
}

# Handlers that allocate, at a fork: each process has a trace of its own nevertheless.
fork_handlers() {
    timeout 20 env MICA_TRACE="$tmp/handlers" LD_PRELOAD="$bin/record.so" "$tmp/forks" || return 1
    [ "$(ls "$tmp"/handlers.forks.*.trace | wc -l)" = 2 ]
}

limited() {
    MICA_TRACE=$tmp/limited MICA_TRACE_CALLS=3 LD_PRELOAD=$bin/record.so "$tmp/calls" every
    says 0 '"calls": 3, "ops": 6, "closing_frees": 2' "$bin/tracetool" info "$tmp"/limited.calls.*.trace
}

# No file may become longer, which stands for a disk that is full.
at_most() { # KIB COMMAND...
    (trap '' XFSZ; ulimit -f "$1"; shift; exec "$@")
}

full() {
    says 0 "File too large, so the trace ends here" at_most 1024 timeout 20 env MICA_TRACE="$tmp/full" \
        LD_PRELOAD="$bin/record.so" "$tmp/calls" many && "$bin/tracetool" info "$tmp"/full.calls.*.trace
}

ok "record every call" every_call
ok "record odd alignments" odd_alignments
ok "record threads" threads
ok "record a fork" fork_case
ok "record an exec and a fork" exec_case
ok "record a fork with handlers that allocate" fork_handlers
ok "record a process that is killed" killed
ok "record the first calls only" limited
ok "a recording that meets a full disk says so" full

# --- What is kept of a recording ----------------------------------------------------

# keep STATUS TEXT COMMAND NAME: what `make bench-record` does, into $tmp/kept/traces
mkdir "$tmp/kept" && ln -s "$bin" "$tmp/kept/host" || exit 1
keep() { says "$1" "$2" python3 scripts/bench_record.py "$tmp/kept" --program "$3" "$4"; }

kept_are() { # NAME...
    diff <(ls "$tmp/kept/traces") <([ $# = 0 ] || printf '%s.trace\n' "$@")
}

# A name that JSON must quote, and one that is not UTF-8.
odd_names() {
    local name
    for name in $'a"b\\c\td' $'\377'; do
        cp "$tmp/calls" "$tmp/$name"
        keep 0 recorded "exec '$tmp/$name' fork" odd && kept_are odd || return 1
        rm "$tmp/kept/traces/odd.trace"
    done
}

# A shell that runs nothing has a trace as well: that is not what was asked for.
not_run() {
    : >"$tmp/plain-file"
    keep 1 nosuchprogram "nosuchprogram; exit" x &&
        keep 1 plain-file "$tmp/plain-file" x && kept_are
}

no_name() {
    local name
    for name in ../evil .hidden 'two words'; do
        keep 1 "NAME=$name" "touch $tmp/ran" "$name" && kept_are && [ ! -e "$tmp/ran" ] || return 1
    done
}

# A program that is called like a trace of the default set, or as no trace can be, needs a NAME.
taken_names() {
    local name
    for name in git syn-own; do
        keep 1 "NAME=$name: the default set has" "touch $tmp/ran" "$name" && [ ! -e "$tmp/ran" ] || return 1
    done
    for name in git syn-own .hid 'two words'; do
        cp "$tmp/calls" "$tmp/$name"
        keep 1 "NAME=$name: " "exec '$tmp/$name' threads" "" && kept_are || return 1
    done
    cp "$tmp/calls" "$tmp/git2"
    keep 0 "recorded git2" "exec '$tmp/git2' threads" "" && kept_are git2 && rm "$tmp/kept/traces/git2.trace"
}

cut() {
    keep 0 "(cut at 500000 calls)" "exec '$tmp/calls' many" own && kept_are own && rm "$tmp/kept/traces/own.trace"
}

ok "a program that is not there is an error" not_run
ok "a name that is a path or words is refused" no_name
ok "programs with odd names are recorded" odd_names
ok "traces of the default set are not replaced" taken_names
ok "a recording that is cut says so" cut

# --- Made-up traces -----------------------------------------------------------------

# Nothing is left of a trace that does not fit, whether the first piece of it or a later one.
synth_full() {
    local kib
    for kib in 100 1024; do
        says 1 "$tmp/part.trace: File too large" at_most $kib "$bin/tracetool" synth small "$tmp/part.trace" &&
            [ ! -e "$tmp/part.trace" ] || return 1
    done
}

# Files that are there: an older trace is replaced, what is no file stays.
synth_over() {
    local other
    mkfifo "$tmp/pipe" && ln -s good "$tmp/link" && mkdir "$tmp/folder" || return 1
    for other in pipe link folder; do
        says 1 "$tmp/$other: not a file" "$bin/tracetool" synth small "$tmp/$other" 100 || return 1
    done
    [ -p "$tmp/pipe" ] && [ -L "$tmp/link" ] && [ -d "$tmp/folder" ] &&
        "$bin/tracetool" synth small "$tmp/old.trace" 100 && "$bin/tracetool" synth small "$tmp/old.trace" 200 &&
        says 0 '"calls": 200,' "$bin/tracetool" info "$tmp/old.trace"
}
ok "a made-up trace on a full disk is an error" synth_full
ok "a made-up trace replaces a file only" synth_over

# --- Damaged traces ----------------------------------------------------------------

good=$tmp/good.trace
"$bin/tracetool" synth small "$good" 60000
refuse() { # TEXT FILE
    says 1 "$2: $1" "$bin/tracetool" info "$2" && says 1 "$2: $1" "$bin/replay" pass "$tmp/broken.so" "$2"
}

head -c 10000 "$good" >"$tmp/cut.trace"
head -c 20 "$good" >"$tmp/stub.trace"
: >"$tmp/empty.trace"
cp scripts/bench-test.sh "$tmp/garbage.trace"
{ head -c 5000 "$good"; printf '\377\377'; tail -c +5003 "$good"; } >"$tmp/flipped.trace"
ok "a truncated trace is refused" refuse "truncated" "$tmp/cut.trace"
ok "a truncated header is refused" refuse "not a trace" "$tmp/stub.trace"
ok "an empty file is refused" refuse "not a trace" "$tmp/empty.trace"
ok "another file is refused" refuse "not a trace" "$tmp/garbage.trace"
ok "a damaged trace is refused" refuse "damaged" "$tmp/flipped.trace"
ok "a missing file is refused" refuse "No such file" "$tmp/none.trace"
# Before anything is built or measured: the results of the last run stay.
not_measured() {
    local trace
    for trace in none empty cut; do
        says 1 "$tmp/$trace.trace: " python3 scripts/bench.py "$good" "$tmp/$trace.trace" || return 1
        says 2 "$tmp/$trace.trace: " env SETUP=no timeout 20 make -s bench TRACES="$tmp/$trace.trace" || return 1
    done
}
ok "a benchmark of a damaged trace does not begin" not_measured
ok "a whole trace is taken" "$bin/replay" pass "$tmp/broken.so" "$good"

ok "hostile traces end in an error at worst" python3 - "$tmp" "$bin/tracetool" <<'END'
import random, struct, subprocess, sys
tmp, tool = sys.argv[1:]
path = tmp + "/hostile.trace"
subprocess.run([tool, "synth", "aligned", path, "1000"], check=True)
whole = open(path, "rb").read()
header = "<8s32s3Q"
size = struct.calcsize(header)
for turn in range(150):
    magic, program, nevents, _, _ = struct.unpack_from(header, whole)
    stream = bytearray(whole[size:])
    checksum = 0xcbf29ce484222325
    for _ in range(1 + turn % 8):
        stream[random.randrange(len(stream))] = random.randrange(256)
    for byte in stream:  # right, so that it is the decoder that has to notice
        checksum = (checksum ^ byte) * 0x100000001b3 & 0xffffffffffffffff
    open(path, "wb").write(struct.pack(header, magic, program, nevents, len(stream), checksum) + stream)
    status = subprocess.run([tool, "info", path], capture_output=True, timeout=20).returncode
    if status not in (0, 1):
        sys.exit("turn %d: status %d" % (turn, status))
END

# --- Mistakes of allocators ---------------------------------------------------------

verify() { # MISTAKE STATUS TEXT
    says "$2" "$3" env BENCH_BREAK="$1" "$bin/replay" verify "$tmp/broken.so" "$good"
}
ok "a right allocator passes" verify none 0 '{"verified": '
ok "overlap is caught" verify overlap 1 "overlaps a live block"
ok "misalignment is caught" verify misaligned 1 "misaligned"
ok "corruption is caught" verify corrupt 1 "contents changed"
ok "a block elsewhere is caught" verify outside 1 "outside the region"
ok "running out of memory is reported" verify exhausted 1 "out of memory at operation"
ok "a region that never suffices is reported, and no larger one tried" says 1 "does not fit into 33554432 bytes" \
    env BENCH_BREAK=exhausted "$bin/replay" region --region 33554432 "$tmp/broken.so" "$good"
ok "a plugin that dies is reported" says 1 "the plugin died" \
    env BENCH_BREAK=crash "$bin/replay" region "$tmp/broken.so" "$good"
gcc -shared -o "$tmp/none.so" -x c /dev/null || exit 1
ok "another library is no plugin" says 1 "not an allocator's plugin" "$bin/replay" pass "$tmp/none.so" "$good"

# --- Numbers ------------------------------------------------------------------------

no_numbers() {
    local number
    for number in abc -1 +1 ' 1' '' 1k 1KB 0x 0 99999999999999999999 16777216T 99999999999999999G; do
        says 2 "--events $number: not a number" "$bin/replay" pass --events "$number" "$tmp/broken.so" "$good" &&
            says 2 "--align $number: not a number" "$bin/replay" pass --align "$number" "$tmp/broken.so" "$good" &&
            says 2 "--region $number: not a number" "$bin/replay" pass --region "$number" "$tmp/broken.so" "$good" &&
            says 2 "--pages $number: not a number" "$bin/pagebench" --pages "$number" "$tmp/broken.so" &&
            says 2 "EVENTS $number: not a number" "$bin/tracetool" synth small "$tmp/bad.trace" "$number" &&
            [ ! -e "$tmp/bad.trace" ] || return 1
    done
}

# The program runs on, without a trace.
no_trace() { # SETTING WHAT
    says 0 "record: $1: $2, so there is no trace" timeout 20 env MICA_TRACE="$tmp/bad" "$1" \
        LD_PRELOAD="$bin/record.so" "$tmp/calls" every && ! ls "$tmp"/bad.*
}

sizes() {
    says 1 "does not fit into 65536 bytes" "$bin/replay" region --region 64K "$tmp/broken.so" "$good" &&
        says 1 "does not fit into 65536 bytes" "$bin/replay" region --region 0x10000 "$tmp/broken.so" "$good" &&
        says 0 "" "$bin/replay" pass --region 1G "$tmp/broken.so" "$good"
}
ok "what is not a number is refused" no_numbers
ok "no trace of no number of calls" no_trace MICA_TRACE_CALLS=-5 "not a number"
ok "no trace in a folder that is not there" no_trace MICA_TRACE=/none/t "No such file or directory"
ok "sizes may end in a letter" sizes

# --- Counting -------------------------------------------------------------------------

emulated=("qemu-$(uname -m)" -plugin "$bin/libcount.so,counter=$tmp/counter" -E "BENCH_BREAK=none")
count=("$bin/replay" count --counter "$tmp/counter" "$tmp/broken.so" "$good")
pages=("$bin/pagebench" --counter "$tmp/counter" --pages 65536 "$tmp/broken.so")
ok "a free of 100 instructions counts 100" says 0 '"free": 100.000' "${emulated[@]}" "${count[@]}"
ok "two counts agree to the last instruction" says 0 "$("${emulated[@]}" "${count[@]}")" "${emulated[@]}" "${count[@]}"
ok "nothing is counted without the emulator" says 1 "the counter stands still" "${count[@]}"
ok "pages: a mistake is caught" says 1 "overlaps a run in use" "${emulated[@]}" -E BENCH_BREAK=overlap "${pages[@]}"
ok "pages: a right allocator is measured" says 0 '"full": 50, "run": 512, "batch": 16' "${emulated[@]}" "${pages[@]}"

# --- Results that are missing -----------------------------------------------------------

ok "a step that fails is an error of the result" python3 - <<'END'
import sys
sys.path.insert(0, "scripts")
import bench

STEPS = ("verify", "count", "region", "time", "time", "time")

def measure(failing):
    """With tools of which one call fails; None: none does."""
    calls = []
    def run_json(command):
        calls.append(command[command.index([c for c in command if c.endswith("/replay")][0]) + 1])
        if len(calls) - 1 == failing:
            return [{"error": "died silently (status 1)"}]
        return [{"verified": 1, "instr": 2.0, "bytes": 3, "ratio": 1.5, "ns": 10.0 - len(calls)}]
    bench.run_json = run_json
    result = bench.measure_heap(bench.Heap("slab", "h1/mica-slab.so", harden=1), "a/b.trace", [])
    assert tuple(calls) == STEPS[:len(calls)], calls
    return result

good = measure(None)
assert "error" not in good and (good["ns"], good["memory_ratio"], good["instr"]) == (4.0, 1.5, 2.0), good
for n, step in enumerate(STEPS):
    bad = measure(n)
    assert "died silently" in bad["error"], (step, bad)
    assert step == "count" or bad["error"].startswith("memory" if step == "region" else step), (step, bad)
END

# --- Import, means, tables, plots -------------------------------------------------------

ok "traces of another format are imported" python3 - "$tmp" "$bin/tracetool" <<'END'
import struct, subprocess, sys
tmp, tool = sys.argv[1:]
ops = bytes([0 << 2 | 0, 100, 1 << 2 | 2, 0x90, 0x03, 6, 0 << 2 | 1, 1 << 2 | 1])  # the last one closes
open(tmp + "/other.hb", "wb").write(struct.pack("<8s7Q", b"HBTRACE1", 4, 3, 2, 500, 2, len(ops), 0) + ops)
subprocess.run([sys.executable, "scripts/bench_import.py", tmp + "/other.hb", tmp], check=True)
said = subprocess.run([tool, "dump", tmp + "/traces/other.trace"], capture_output=True, text=True, check=True).stdout
expected = "alloc 0 size 100 align 1\nalloc 1 size 400 align 64\nfree 0\nend\nfree 1\n"
sys.exit(said != expected and "got:\n" + said)
END

import_refused() { # WHY FILE...
    local why=$1 file
    shift
    for file in "$@"; do
        [ "$(python3 scripts/bench_import.py "$file" "$tmp/kept" 2>&1 | wc -l)" = 1 ] &&
            says 1 "bench_import: $file: $why" python3 scripts/bench_import.py "$file" "$tmp/kept" && kept_are || return 1
    done
}
cp "$tmp/other.hb" "$tmp/git.hb" && cp "$tmp/other.hb" "$tmp/syn-small.hb"
head -c 70 "$tmp/other.hb" >"$tmp/cut.hb"
head -c 63 "$tmp/other.hb" >"$tmp/short.hb"
{ head -c 64 "$tmp/other.hb"; printf '\2\144\60\1\4\1\5'; } >"$tmp/wild.hb" # 100 bytes aligned to 1 << 48
ok "an import called like a trace of the default set is refused" import_refused "the default set" "$tmp"/{git,syn-small}.hb
ok "an import of a truncated trace is refused" import_refused "truncated" "$tmp/cut.hb"
ok "an import of a damaged trace is refused" import_refused "damaged" "$tmp/wild.hb"
ok "an import of another file is refused" import_refused "not an HBTRACE1 trace" "$tmp/short.hb" "$good"
ok "an import of a missing file is refused" import_refused "No such file" "$tmp/none.hb"

ok "means, tables and plots" python3 - "$tmp" <<'END'
import os, sys
sys.path.insert(0, "scripts")
import bench_report
tmp = sys.argv[1]
def line(trace, instr, worst, **more):
    return dict({"bench": "trace", "arch": "host", "allocator": "slab", "harden": 1, "trace": trace,
                 "instr": instr, "memory_ratio": 1.0, "ns": 1.0, "worst": worst,
                 **{p: instr for p in ("p50", "p90", "p99", "p999", "p9999")}}, **more)
results = [line("a", 2.0, 30), line("b", 8.0, 10), line("syn-c", 32.0, 50), line("syn-d", 1.0, 9, error="x")]
results += bench_report.geometric_means(results)
real, every = [r for r in results if r["bench"] == "mean"]
assert (real["traces"], real["instr"], real["worst"], real["good"], real["of"]) == ("real", 4.0, 30, 2, 2), real
assert (every["traces"], every["instr"], every["worst"], every["good"], every["of"]) == ("all", 8.0, 50, 3, 4), every
bench_report.write_all(results, tmp)
open(tmp + "/document.md", "w").write("kept\n" + bench_report.MARK + "old\n")
bench_report.write_into(results, tmp + "/document.md")
document = open(tmp + "/document.md").read()
assert document.startswith("kept\n") and "old" not in document and "| slab, h1 | 4.000 | 30 |" in document, document
assert "| slab, h1 | 2.000 | 8.000 | 32.0 | failed |" in open(tmp + "/results.md").read()
for name in ("instructions.svg", "memory.svg", "worst.svg", "tail.svg"):
    assert "</svg>" in open(os.path.join(tmp, name)).read(), name
END

ok "a document without results is an error" says 1 "$tmp/kept/results.jsonl: there are no results" \
    python3 scripts/bench_report.py "$tmp/kept" "$tmp/document.md"

exit $failed
