#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""bench_report.py RESULTS_DIR [DOCUMENT]: tables and plots from RESULTS_DIR/results.jsonl, as bench.py makes them;
or the same into a document.

A table is a title, a note, and rows of cells; it is printed as text and written as Markdown.
"""
import json, math, os, subprocess, sys

FIGURES = (("instr", "instructions per operation"), ("worst", "worst single operation, instructions"),
           ("memory_ratio", "memory over peak live bytes"), ("ns", "nanoseconds per operation"))


def geometric_mean(values):
    return math.exp(sum(map(math.log, values)) / len(values))


def is_synthetic(trace):
    return trace.startswith("syn-")


def distinct(values):
    return list(dict.fromkeys(values))


def replays(results, arch="host"):
    return [r for r in results if r["bench"] == "trace" and r["arch"] == arch]


def traces_of(lines):
    return distinct(r["trace"] for r in lines)


def allocators_of(lines):
    return distinct((r["allocator"], r["harden"]) for r in lines)


def mean_line(chosen, which, common):
    """The worst operation is a maximum, not a mean; memory and time are measured on this machine only."""
    good = [r for r in chosen if "error" not in r]
    line = {"bench": "mean", "arch": chosen[0]["arch"], "allocator": chosen[0]["allocator"],
            "harden": chosen[0]["harden"], "traces": which, "of": len(chosen), "good": len(good),
            "worst": max((r["worst"] for r in good), default=None)}
    shared = [r for r in good if r["trace"] in common]
    for key in ("instr", "memory_ratio", "ns"):
        if shared and key in shared[0]:
            line[key] = round(geometric_mean([r[key] for r in shared]), 4)
    return line


def geometric_means(results):
    """One line per architecture, allocator and set of traces: the recorded ones, and all. A trace that one allocator
    could not do is in nobody's mean, so that means can be compared."""
    means = []
    for arch in distinct(r["arch"] for r in results if r["bench"] == "trace"):
        lines = replays(results, arch)
        common = set(traces_of(lines)) - {r["trace"] for r in lines if "error" in r}
        for allocator in allocators_of(lines):
            mine = [r for r in lines if (r["allocator"], r["harden"]) == allocator]
            real = [r for r in mine if not is_synthetic(r["trace"])]
            means += [mean_line(chosen, which, common) for which, chosen in (("real", real), ("all", mine)) if chosen]
    return means


# --- Tables ---------------------------------------------------------------------


def label(name, harden):
    return name if harden is None else "%s, h%d" % (name, harden)


def number(value):
    if value is None:
        return "-"
    if isinstance(value, float):
        return "%.3f" % value if value < 10 else "%.1f" % value
    return "{:,}".format(value)


def means_of(results, arch):
    return {(r["allocator"], r["harden"], r["traces"]): r for r in results if r["bench"] == "mean" and r["arch"] == arch}


def summary_table(results):
    means = means_of(results, "host")
    rows = [["allocator", "instr/op", "worst op", "memory", "ns/op", "all: instr/op", "worst op", "memory", "traces"]]
    for name, harden in allocators_of(replays(results)):
        real, every = means.get((name, harden, "real"), {}), means[name, harden, "all"]
        rows.append([label(name, harden)] + [number(real.get(k)) for k in ("instr", "worst", "memory_ratio", "ns")] +
                    [number(every.get(k)) for k in ("instr", "worst", "memory_ratio")] +
                    ["%d of %d" % (every["good"], every["of"])])
    return ("Allocators: geometric means",
            "The first four columns are over the recorded traces, the next three over all. The worst operation is the "
            "maximum. Memory: the smallest region that completes the trace, or for peers how far the process grows, over "
            "the peak of live bytes. h0, h1: hardening level. ns/op is noisy. traces: how many it could do; one that somebody "
            "could not do is in nobody's mean.", rows)


def trace_table(results, key, title, arch="host"):
    """On the targets the means stand here, because the summary is of this machine."""
    lines = replays(results, arch)
    traces, means = traces_of(lines), means_of(results, arch)
    found = {(r["allocator"], r["harden"], r["trace"]): r for r in lines}
    more = ["mean", "mean of all", "worst op"] if arch != "host" else []
    rows = [["allocator"] + [t.replace("syn-", "s-") for t in traces] + more]
    for name, harden in allocators_of(lines):
        cells = [found.get((name, harden, t), {}) for t in traces]
        rows.append([label(name, harden)] + ["failed" if "error" in r else number(r.get(key)) for r in cells])
        if more:
            real, every = means.get((name, harden, "real"), {}), means[name, harden, "all"]
            rows[-1] += [number(real.get("instr")), number(every.get("instr")), number(every.get("worst"))]
    where = "" if arch == "host" else " on %s" % arch
    return ("By trace%s: %s" % (where, title), "s-: made-up traces." + (
        " mean: geometric, over the recorded traces." if more else ""), rows)


def pages_table(results, arch):
    lines = [r for r in results if r["bench"] == "pages" and r["arch"] == arch and "error" not in r]
    starts = {(r["memory"], r["harden"]): r for r in lines if "filled" in r}
    costs = {(r["memory"], r["harden"], r["run"], r["batch"], r["full"]): r for r in lines if "full" in r}
    columns = sorted(distinct(key[2:] for key in costs), key=lambda c: (c[0], c[1] > 64, c[2]))
    rows = [["memory", "init", "metadata", "filled"] + [
        "%d%s, %d %%" % (run, " (many)" if batch > 64 else "", full) for run, batch, full in columns]]
    for (memory, harden), start in starts.items():
        cells = [costs[(memory, harden) + c] for c in columns]
        rows.append([label(memory, harden), number(start["init"]),
                     "%.4f %%" % (100 * start["meta_bytes"] / 4096 / start["pages"]), "%.2f %%" % start["filled"]] +
                    ["%.0f/%.0f%s" % (c["alloc"], c["free"], "*" if c["failed"] else "") for c in cells])
    return ("Pages%s: instructions to allocate / to free" % ("" if arch == "host" else " on " + arch),
            "Columns: length of the run, aligned to itself, and how full the memory is; many: 512 single pages at once, "
            "more than a CPU keeps. *: some requests found no room.", rows)


def guest_tables(results):
    lines = [r for r in results if r["bench"] == "guest" and "error" not in r]
    for arch in distinct(r["arch"] for r in lines):
        mine = [r for r in lines if r["arch"] == arch]
        columns = distinct((r["test"], r["size"]) for r in mine)
        found = {(r["engine"], r["harden"], r["test"], r["size"]): r["instr"] for r in mine}
        rows = [["facade over"] + ["%s %d" % c for c in columns]]
        for engine, harden in distinct((r["engine"], r["harden"]) for r in mine):
            rows.append([label(engine, harden)] + [number(found.get((engine, harden) + c)) for c in columns])
        yield ("In the kernel on %s: instructions for an allocation and its free" % arch,
               "tight: the same block again and again; churn: among 10,000 live blocks; pages: runs of so many.", rows)


def all_tables(results):
    """The tables that are printed, and those that results.md has besides."""
    printed, more = [], []
    if replays(results):
        printed.append(summary_table(results))
        by_trace = [trace_table(results, key, title) for key, title in FIGURES]
        printed += by_trace[:1]
        more += by_trace[1:]
    for arch in distinct(r["arch"] for r in results if r["bench"] == "trace" and r["arch"] != "host"):
        printed.append(trace_table(results, *FIGURES[0], arch))
    for arch in distinct(r["arch"] for r in results if r["bench"] == "pages" and "filled" in r):
        printed.append(pages_table(results, arch))
    return printed + list(guest_tables(results)), more


def as_text(table):
    title, note, rows = table
    widths = [max(len(r[i]) for r in rows) for i in range(len(rows[0]))]
    lines = ["  ".join([r[0].ljust(widths[0])] + [c.rjust(w) for c, w in zip(r[1:], widths[1:])]) for r in rows]
    return "\n".join([title, *lines, "  (%s)" % note, ""])


def as_markdown(table):
    title, note, rows = table
    lines = ["| " + " | ".join(r) + " |" for r in rows]
    lines.insert(1, "| --- |" + " ---: |" * (len(rows[0]) - 1))
    return "\n".join(["## " + title, "", note, "", *lines, ""])


# --- Plots ----------------------------------------------------------------------


PLOT = """set terminal svg size 1500,520 dynamic background rgb 'white' font 'sans,12'
set output '{out}'
set title "{title}"
set style data histogram
set style histogram clustered gap 1.5
set style fill solid 0.9 border -1
set boxwidth 1
set grid ytics
set key outside right top
set xtics nomirror
set yrange [{low}:*]
{scale}
plot {series}
"""
MARK = "<!-- What follows is written by make bench-docs -->\n"
COLOURS = {"slab": "#1b7837", "tlsf": "#2166ac", "buddy": "#b35806", "glibc": "#555555", "jemalloc": "#999999",
           "mimalloc": "#cccccc"}


def plot(results, key, title, path, logarithmic):
    """Bars by trace and for the mean; the lighter of two is hardening 1; the facade is left to the tables."""
    lines = replays(results)
    groups = traces_of(lines)
    chosen = [a for a in allocators_of(lines) if a[0] in COLOURS]
    chosen.sort(key=lambda a: (list(COLOURS).index(a[0]), a[1] or 0))
    found = {(r["allocator"], r["harden"], r["trace"]): r.get(key) for r in lines}
    if key != "worst":
        groups = groups + ["mean"]
        found.update({(name, harden, "mean"): r.get(key) for (name, harden, which), r in
                      means_of(results, "host").items() if which == "all"})
    rows = ["\t".join(["trace"] + ['"%s"' % label(*a) for a in chosen])]
    for g in groups:
        values = [found.get(a + (g,)) for a in chosen]
        rows.append("\t".join([g.replace("syn-", "s-")] + ["?" if v is None else "%g" % v for v in values]))
    series = ", ".join("$d using %d:xtic(1) title columnheader lc rgb '%s%s'" % (
        i + 2, "#70" if a[1] else "#00", COLOURS[a[0]][1:]) for i, a in enumerate(chosen))
    script = PLOT.format(out=path, title=title, series=series, low="10" if logarithmic else "0",
                         scale="set logscale y" if logarithmic else "")
    data = "set datafile missing '?'\n$d << EOD\n%s\nEOD\n" % "\n".join(rows)
    subprocess.run(["gnuplot"], input=data + script, text=True, check=True)


TAIL = """set terminal svg size 900,520 dynamic background rgb 'white' font 'sans,12'
set output '{out}'
set title "Single operations: so many instructions are not exceeded by ..., on the worst trace for each"
set logscale y
set grid
set key outside right top
set yrange [10:*]
set xrange [-0.2:5.2]
set xtics ("50 %%" 0, "90 %%" 1, "99 %%" 2, "99.9 %%" 3, "99.99 %%" 4, "all" 5)
plot {series}
"""


def plot_tails(results, path):
    """How rare a slow operation is: a line for each allocator."""
    lines = [r for r in replays(results) if "error" not in r]
    chosen = [a for a in allocators_of(lines) if a[0] in COLOURS and a[1] in (None, 1)]
    blocks, series = [], []
    for name, harden in chosen:
        mine = [r for r in lines if (r["allocator"], r["harden"]) == (name, harden)]
        costs = [max(r[k] for r in mine) for k in ("p50", "p90", "p99", "p999", "p9999", "worst")]
        blocks.append("$%s << EOD\n%s\nEOD\n" % (name, "\n".join(map(str, costs))))
        series.append("$%s using 0:1 with linespoints lw 2 pt 7 lc rgb '%s' title '%s'" % (
            name, COLOURS[name], label(name, harden)))
    script = TAIL.format(out=path, series=", ".join(series))
    subprocess.run(["gnuplot"], input="".join(blocks) + script, text=True, check=True)


PLOTS = (("instructions.svg", "instr", "Instructions per operation", True),
         ("memory.svg", "memory_ratio", "Memory over peak live bytes", False),
         ("worst.svg", "worst", "Worst single operation, instructions", True))


def write_plots(results, folder):
    for name, key, title, logarithmic in PLOTS:
        plot(results, key, title, os.path.join(folder, name), logarithmic)
    plot_tails(results, os.path.join(folder, "tail.svg"))
    return [name for name, *_ in PLOTS] + ["tail.svg"]


def write_all(results, folder, quick=False):
    """Prints the main tables, and writes results.md with all of them and the plots."""
    printed, more = all_tables(results)
    for table in printed:
        print(as_text(table))
    plots = write_plots(results, folder) if replays(results) else []
    with open(os.path.join(folder, "results.md"), "w") as out:
        out.write("# Benchmark results%s\n\n" % (" (QUICK=1: the head of each trace only)" if quick else ""))
        out.write("\n".join(map(as_markdown, printed + more)))
        out.writelines("\n![](%s)\n" % name for name in plots)
    print("written: " + ", ".join(os.path.join(folder, n) for n in ["results.jsonl", "results.md"] + plots))


def write_into(results, document):
    """The tables and plots become the part of a document behind its line of that name."""
    text = open(document).read()
    head, mark, _ = text.partition(MARK)
    if not mark:
        raise SystemExit("%s: no line %s" % (document, MARK))
    pictures = os.path.join(os.path.dirname(document), "bench")
    os.makedirs(pictures, exist_ok=True)
    plots = write_plots(results, pictures)
    printed, more = all_tables(results)
    with open(document, "w") as out:
        out.write(head + MARK + "\n" + "".join("![](bench/%s)\n\n" % name for name in plots))
        out.write("\n".join("#" + as_markdown(t) for t in printed + more))


def read_results(folder):
    path = os.path.join(folder, "results.jsonl")
    if not os.path.exists(path):
        raise SystemExit("%s: there are no results; `make bench` makes them" % path)
    with open(path) as lines:
        return [json.loads(line) for line in lines]


def main():
    results = read_results(sys.argv[1])
    if len(sys.argv) > 2:
        write_into(results, sys.argv[2])
    else:
        write_all(results, sys.argv[1])


if __name__ == "__main__":
    main()
