#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""bench.py [--quick] [--no-guest] [TRACE...]     (make bench)

Replays traces against Mica's allocators and their peers, measures the page allocator and the kernels on the
targets, and writes build/bench/results.jsonl (one line per result), results.md, and plots. Traces: those of
build/bench/traces, where the default set is recorded on first use; or the ones that are named.

A result that could not be measured is a line with an "error"; the exit status is 1 unless it is a peer's.
"""
import argparse, concurrent.futures, glob, json, os, re, subprocess, sys, tempfile, time

import bench_record, bench_report

DIR = "build/bench"
BIN = os.path.join(DIR, "bin")
QUICK_EVENTS = 60000
TIME_RUNS = 3
PAGES = {"256 MiB": 1 << 16, "4 GiB": 1 << 20, "64 GiB": 1 << 24, "1 TiB": 1 << 28}
LIMIT = 300  # seconds for one measurement
EMULATOR = "qemu-" + os.uname().machine


class Heap:
    """One allocator at one hardening level (peers have none), and how to start the replayer with it."""

    def __init__(self, name, plugin, harden=None, preload=None):
        self.name, self.plugin, self.harden, self.preload = name, plugin, harden, preload

    def command(self, tool, args, counter=None):
        """Runs natively, or under the emulator when there is a counter's file."""
        tool = [os.path.join(BIN, tool)]
        if not counter:
            return (["env", "LD_PRELOAD=" + self.preload] if self.preload else []) + tool + args
        emulator = [EMULATOR, "-plugin", "%s,counter=%s" % (os.path.join(BIN, "libcount.so"), counter)]
        if self.preload:
            emulator += ["-E", "LD_PRELOAD=" + self.preload]
        return emulator + tool + args


def mica_heaps():
    for harden in (0, 1):
        for engine in ("slab", "tlsf", "buddy"):
            yield Heap(engine, "%s/h%d/mica-%s.so" % (DIR, harden, engine), harden)
        for engine in ("slab", "tlsf", "buddy"):
            yield Heap("facade+" + engine, "%s/h%d/mica-global-%s.so" % (DIR, harden, engine), harden)


def peer_heaps():
    """The C library's malloc, and the shared libraries that the set-up installs."""
    plugin = os.path.join(BIN, "libc.so")
    yield Heap("glibc", plugin)
    for name in ("jemalloc", "mimalloc"):
        found = sorted(glob.glob("/usr/lib/*/lib%s.so" % name) + glob.glob("/usr/lib*/lib%s.so" % name))
        if found:
            yield Heap(name, plugin, preload=found[0])
        else:
            print("bench: no lib%s.so here: left out" % name, file=sys.stderr)


def run_json(command):
    """What a tool printed, line by line; or one dictionary with the error."""
    try:
        run = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT)
    except subprocess.TimeoutExpired:
        return [{"error": "no result after %d s" % LIMIT}]
    if run.returncode == 0:
        return [json.loads(line) for line in run.stdout.splitlines() if line.startswith("{")]
    said = run.stderr.strip().splitlines()
    return [{"error": "%s (status %d)" % (said[-1] if said else "died silently", run.returncode)}]


def measure_heap(heap, trace, replay_args):
    """All figures of one allocator on one trace. No figure without a successful verification."""
    result = {"bench": "trace", "allocator": heap.name, "harden": heap.harden,
              "trace": os.path.basename(trace).replace(".trace", "")}
    args = replay_args + [heap.plugin, trace]
    verified = run_json(heap.command("replay", ["verify"] + args))[0]
    if "error" in verified:
        return dict(result, error="verify: " + verified["error"])
    with tempfile.NamedTemporaryFile() as counter:
        result.update(run_json(heap.command("replay", ["count", "--counter", counter.name] + args, counter.name))[0])
    memory = run_json(heap.command("replay", ["region" if heap.harden is not None else "resident"] + args))[0]
    if "error" in memory and "error" not in result:
        result["error"] = "memory: " + memory["error"]
    result.update({"memory_" + k: v for k, v in memory.items() if k in ("bytes", "ratio")})
    times = [run_json(heap.command("replay", ["time"] + args))[0].get("ns") for _ in range(TIME_RUNS)]
    result["ns"] = min(times) if None not in times else None
    return result


def measure_pages(harden, label, npages):
    """The page allocator over so many pages: a line for its start, and one for each shape and level."""
    heap = Heap("pages", "%s/h%d/mica-pages.so" % (DIR, harden), harden)
    with tempfile.NamedTemporaryFile() as counter:
        lines = run_json(heap.command("pagebench", ["--counter", counter.name, "--pages", str(npages), heap.plugin],
                                      counter.name))
    return [dict({"bench": "pages", "harden": harden, "memory": label}, **line) for line in lines]


def measure_guest(quick):
    """The kernels count on the targets themselves (make bench-guest)."""
    command = ["make", "--no-print-directory", "bench-guest"] + (["GUEST_HARDEN=1"] if quick else [])
    run = subprocess.run(command, capture_output=True, text=True)
    lines = [line for line in run.stdout.splitlines() if line.startswith("bench ")]
    if run.returncode or not lines:
        said = (run.stderr.strip() or run.stdout.strip() or "no output").splitlines()
        return [{"bench": "guest", "error": "make bench-guest: " + said[-1]}]
    return [dict({"bench": "guest"}, **parse_guest(line)) for line in lines]


def parse_guest(line):
    """bench arch=riscv64 engine=slab harden=1 test=tight size=64 instr=49.8"""
    fields = dict(re.findall(r"(\w+)=(\S+)", line))
    return {k: v if k in ("arch", "engine", "test") else float(v) if k == "instr" else int(v)
            for k, v in fields.items()}


def find_traces(named):
    """The traces to replay; what is missing of the default set is recorded first."""
    if named:
        return named
    folder = os.path.join(DIR, "traces")
    names = bench_record.REAL + tuple("syn-" + kind for kind in bench_record.SYNTHETIC)
    missing = [n for n in names if not os.path.exists(os.path.join(folder, n + ".trace"))]
    if missing:
        print("bench: recording " + ", ".join(missing), flush=True)
        bench_record.Recorder(DIR).default_set(missing)
    rest = sorted(os.path.basename(t)[:-len(".trace")] for t in glob.glob(os.path.join(folder, "*.trace")))
    return [os.path.join(folder, n + ".trace") for n in names + tuple(n for n in rest if n not in names)]


def measure_all(traces, quick, guest):
    """All results; the machine's CPUs share the work, for instructions do not depend on the load."""
    replay_args = ["--events", str(QUICK_EVENTS)] if quick else []
    heaps = list(mica_heaps()) + list(peer_heaps())
    sizes = {k: v for k, v in PAGES.items() if not quick or v < 1 << 28}
    results, start = [], time.time()
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        jobs = [pool.submit(measure_pages, h, label, n) for h in (0, 1) for label, n in sizes.items()]
        jobs += [pool.submit(measure_heap, h, t, replay_args) for h in heaps for t in traces]
        for n, job in enumerate(jobs):
            got = job.result()
            results += got if isinstance(got, list) else [got]
            if sys.stderr.isatty():
                print("\r  %d of %d measured, %d s " % (n + 1, len(jobs), time.time() - start), end="", file=sys.stderr)
    if guest:
        print("bench: the kernels on the targets (make bench-guest)", flush=True)
        results += measure_guest(quick)
    return results + bench_report.geometric_means(results)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--no-guest", action="store_true")
    parser.add_argument("trace", nargs="*")
    args = parser.parse_args()
    results = measure_all(find_traces(args.trace), args.quick, not args.no_guest)
    with open(os.path.join(DIR, "results.jsonl"), "w") as out:
        out.writelines(json.dumps(r) + "\n" for r in results)
    bench_report.write_all(results, DIR, args.quick)
    failed = [r for r in results if "error" in r]
    for r in failed:
        print("bench: %s: %s" % (" ".join(str(r.get(k)) for k in ("bench", "allocator", "harden", "trace", "memory")
                                          if r.get(k) is not None), r["error"]), file=sys.stderr)
    return 1 if any(r.get("harden") is not None or "allocator" not in r for r in failed) else 0


if __name__ == "__main__":
    sys.exit(main())
