#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""bench.py [--quick] [TRACE...]     (make bench)
bench.py --check TRACE...          whether these are traces, and nothing more

Replays traces against Mica's allocators and their peers, measures the page allocator and the kernels on the
targets, and writes build/bench/results.jsonl (one line per result), results.md, and plots. The traces are those of
build/bench/traces, where the default set is recorded on first use. Traces that are named are replayed alone, and nothing
else is measured.

A result that could not be measured is a line with an "error"; the exit status is 1 unless it is a peer's.
"""
import argparse, concurrent.futures, glob, json, os, re, subprocess, sys, tempfile, time

import bench_record, bench_report

DIR = "build/bench"
COUNTER = os.path.join(DIR, "host", "libcount.so")
QUICK_EVENTS = 60000
TIME_RUNS = 3
PAGES = {"256 MiB": 1 << 16, "4 GiB": 1 << 20, "64 GiB": 1 << 24, "1 TiB": 1 << 28}
LIMIT = 300  # seconds for one measurement
ENGINES = ("slab", "tlsf", "buddy")
TARGETS = ("riscv64", "aarch64")


class Heap:
    """One allocator at one hardening level (peers have none) on one architecture; "host" is this machine."""

    def __init__(self, name, plugin, arch="host", harden=None, preload=None):
        self.name, self.arch, self.harden, self.preload = name, arch, harden, preload
        self.plugin = os.path.join(DIR, arch, plugin)

    def tool(self, name):
        return os.path.join(DIR, self.arch, name)

    def natively(self, tool, *args):
        return (["env", "LD_PRELOAD=" + self.preload] if self.preload else []) + [self.tool(tool), *args]

    def counted(self, counter, tool, *args):
        """Under the emulator, which counts in the file counter."""
        emulator = ["qemu-" + (os.uname().machine if self.arch == "host" else self.arch),
                    "-plugin", "%s,counter=%s" % (COUNTER, counter.replace(",", ",,"))]
        if self.arch != "host":
            emulator += ["-L", "/usr/%s-linux-gnu" % self.arch]
        if self.preload:
            emulator += ["-E", "LD_PRELOAD=" + self.preload]
        return emulator + [self.tool(tool), *args, "--counter", counter]

    def identity(self):
        return {"arch": self.arch, "allocator": self.name, "harden": self.harden}


def mica_heaps(arch, levels=(0, 1)):
    for harden in levels:
        for engine in ENGINES:
            yield Heap(engine, "h%d/mica-%s.so" % (harden, engine), arch, harden)
        for engine in ENGINES:
            yield Heap("facade+" + engine, "h%d/mica-global-%s.so" % (harden, engine), arch, harden)


def peer_heaps():
    """The C library's malloc, and the shared libraries that the set-up installs."""
    yield Heap("glibc", "libc.so")
    for name in ("jemalloc", "mimalloc"):
        found = sorted(glob.glob("/usr/lib/*/lib%s.so" % name) + glob.glob("/usr/lib*/lib%s.so" % name))
        if found:
            yield Heap(name, "libc.so", preload=found[0])
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


def count(heap, *args):
    with tempfile.NamedTemporaryFile() as counter:
        return run_json(heap.counted(counter.name, *args))


def measure_heap(heap, trace, replay_args):
    """The figures of one allocator on one trace. On this machine: none without a successful verification."""
    result = dict({"bench": "trace"}, **heap.identity(), trace=os.path.basename(trace)[:-len(".trace")])
    args = replay_args + [heap.plugin, trace]
    if heap.arch != "host":
        return dict(result, **count(heap, "replay", "count", *args)[0])
    verified = run_json(heap.natively("replay", "verify", *args))[0]
    if "error" in verified:
        return dict(result, error="verify: " + verified["error"])
    result.update(count(heap, "replay", "count", *args)[0])
    memory = run_json(heap.natively("replay", "region" if heap.harden is not None else "resident", *args))[0]
    if "error" in memory:
        return dict(result, error="memory: " + memory["error"])
    times = [run_json(heap.natively("replay", "time", *args))[0] for _ in range(TIME_RUNS)]
    failed = [t for t in times if "error" in t]
    if failed:
        return dict(result, error="time: " + failed[0]["error"])
    return dict(result, memory_bytes=memory["bytes"], memory_ratio=memory["ratio"], ns=min(t["ns"] for t in times))


def measure_pages(arch, harden, memory, npages):
    """The page allocator over so many pages: a line for its start, and one for each shape and level."""
    heap = Heap("pages", "h%d/mica-pages.so" % harden, arch, harden)
    lines = count(heap, "pagebench", "--pages", str(npages), heap.plugin)
    return [dict({"bench": "pages"}, **heap.identity(), memory=memory, **line) for line in lines]


def measure_guest(quick):
    """The kernels count on the targets themselves (make bench-guest)."""
    command = ["make", "--no-print-directory", "-j%d" % os.cpu_count(), "bench-guest"] + (["GUEST_HARDEN=1"] if quick else [])
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


def find_traces():
    """All traces there are; what is missing of the default set is recorded first."""
    folder = os.path.join(DIR, "traces")
    names = bench_record.REAL + tuple("syn-" + kind for kind in bench_record.SYNTHETIC)
    missing = [n for n in names if not os.path.exists(os.path.join(folder, n + ".trace"))]
    if missing:
        print("bench: recording " + ", ".join(missing), flush=True)
        bench_record.Recorder(DIR).default_set(missing)
    rest = sorted(os.path.basename(t)[:-len(".trace")] for t in glob.glob(os.path.join(folder, "*.trace")))
    return [os.path.join(folder, n + ".trace") for n in names + tuple(n for n in rest if n not in names)]


def refuse_damaged(traces):
    """What is wrong with a file is said by the tool that reads them all."""
    if subprocess.run([os.path.join(DIR, "host", "tracetool"), "info", *traces], stdout=subprocess.DEVNULL).returncode:
        raise SystemExit("bench: nothing was measured")


def page_jobs(quick):
    """Both levels on this machine; on the targets, which take the longest, the usual one."""
    sets = [("host", 0), ("host", 1)] + ([] if quick else [(arch, 1) for arch in TARGETS])
    for arch, harden in sets:
        for memory, npages in PAGES.items():
            if not quick or npages < 1 << 28:
                yield measure_pages, arch, harden, memory, npages


def trace_jobs(traces, quick):
    replay_args = ["--events", str(QUICK_EVENTS)] if quick else []
    heaps = list(mica_heaps("host")) + list(peer_heaps())
    for arch in TARGETS:
        heaps += list(mica_heaps(arch, (1,) if quick else (0, 1))) + [Heap("glibc", "libc.so", arch)]
    yield from [(measure_heap, heap, trace, replay_args) for heap in heaps for trace in traces]


def measure_all(jobs):
    """All results; the machine's CPUs share the work, for instructions do not depend on the load."""
    results, start, said = [], time.time(), time.time()
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        running = [pool.submit(*job) for job in jobs]
        for n, job in enumerate(running):
            got = job.result()
            results += got if isinstance(got, list) else [got]
            if time.time() - said > (1 if sys.stdout.isatty() else 60):
                said = time.time()
                print("bench: %d of %d measured, %d s" % (n + 1, len(running), said - start),
                      end="\r" if sys.stdout.isatty() else "\n", flush=True)
    return results


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("trace", nargs="*")
    args = parser.parse_args()
    alone = bool(args.trace)
    if alone:
        refuse_damaged(args.trace)
    if args.check:
        return 0
    jobs = list(trace_jobs(args.trace or find_traces(), args.quick))
    results = measure_all(jobs if alone else list(page_jobs(args.quick)) + jobs)
    if not alone:
        print("bench: the kernels on the targets (make bench-guest)", flush=True)
        results += measure_guest(args.quick)
    results += bench_report.geometric_means(results)
    with open(os.path.join(DIR, "results.jsonl"), "w") as out:
        out.writelines(json.dumps(r) + "\n" for r in results)
    bench_report.write_all(results, DIR, args.quick)
    failed = [r for r in results if "error" in r]
    for r in failed:
        print("bench: %s: %s" % (" ".join(str(r.get(k)) for k in ("bench", "arch", "allocator", "harden", "trace", "memory")
                                          if r.get(k) is not None), r["error"]), file=sys.stderr)
    return 1 if any(r.get("harden") is not None or "allocator" not in r for r in failed) else 0


if __name__ == "__main__":
    sys.exit(main())
