#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Coverage of mm/ by the host tests: lines and branches, per file and in total.

What a build leaves out (hardening, debug records, engine, bit searches) another one has, so the
tests run once in each of VARIANTS, and a line or an outcome of a branch is covered when one of
them took it. clang counts in the source, before anything is inlined or folded: a branch has one
place (line:column) whatever the build, and a condition that a build folds is no branch there.

usage: coverage.py DIR     fails below LEAST; what lacks is in DIR/missing.txt
"""
import glob
import os
import re
import subprocess
import sys

LEAST = {"lines": 95.0, "branches": 90.0}
VARIANTS = (
    {"HARDEN": "0", "ALLOC": "slab", "HOST_FAST_BITS": "1"},
    {"HARDEN": "1", "ALLOC": "tlsf"},
    {"HARDEN": "1", "ALLOC": "slab", "DEBUG": "1"},
    {"HARDEN": "2", "ALLOC": "buddy"},
    {"HARDEN": "3", "ALLOC": "tlsf"},
)
CC = "clang -fprofile-instr-generate -fcoverage-mapping -DCOVERAGE"
SOURCES = sorted(glob.glob("mm/*.[ch]") + glob.glob("mm/include/mm/*.h"))

FILE = re.compile(r"^(/.*):$")
LINE = re.compile(r"^ *(\d+)\| *([\d.]+[kMGTPE]?)\|")
BRANCH = re.compile(r"^ *\|  Branch \((\d+:\d+)\): \[True: (\S+), False: (\S+)\]")


def measure(variant, directory):
    """Build and run the tests; what llvm-cov shows of SOURCES."""
    build = os.path.join(directory, "-".join(variant.values()))
    profile = os.path.join(build, "profile")
    binary = os.path.join(build, "selftest")
    settings = [f"{k}={v}" for k, v in variant.items()]
    print("coverage:", " ".join(settings), flush=True)
    os.makedirs(build, exist_ok=True)
    with open(os.path.join(build, "log"), "w", encoding="utf-8") as log:
        subprocess.run(["make", "-s", f"-j{os.cpu_count()}", binary, f"HB={build}", "HOST_SAN=none",
                        f"HOSTCC={CC}"] + settings, check=True, stdout=log)
        done = subprocess.run([binary], env=dict(os.environ, LLVM_PROFILE_FILE=profile + ".raw"),
                              stdout=log, stderr=log, check=False, timeout=600)
    if done.returncode:
        sys.exit(f"coverage: tests fail, see {log.name}")
    subprocess.run(["llvm-profdata", "merge", "-o", profile, profile + ".raw"], check=True)
    return subprocess.run(["llvm-cov", "show", binary, f"-instr-profile={profile}",
                           "-show-branches=count", "-show-instantiations=false"] + SOURCES,
                          check=True, text=True, stdout=subprocess.PIPE).stdout


def collect(text, lines, branches):
    """Add one build: {(file, line): covered} and {(file, line:column, outcome): covered}."""
    name = SOURCES[0] # the name stands above a file only when there are several
    for row in text.splitlines():
        if found := FILE.match(row):
            name = os.path.relpath(found[1])
        elif found := LINE.match(row):
            key = name, int(found[1])
            lines[key] = lines.get(key, False) or found[2] != "0"
        elif found := BRANCH.match(row):
            for outcome, count in (("true", found[2]), ("false", found[3])):
                key = name, found[1], outcome
                branches[key] = branches.get(key, False) or count != "0"


def percent(name, what):
    covered = [hit for key, hit in what.items() if name in (None, key[0])]
    share = 100.0 * sum(covered) / len(covered) if covered else 100.0
    return f"{share:6.1f} % of {len(covered):5d}", share


def write_missing(path, lines, branches):
    with open(path, "w", encoding="utf-8") as out:
        for (name, line), hit in sorted(lines.items()):
            if not hit:
                out.write(f"{name}:{line}: line\n")
        for (name, place, outcome), hit in sorted(branches.items()):
            if not hit:
                out.write(f"{name}:{place}: never {outcome}\n")


def main():
    directory = sys.argv[1]
    lines, branches = {}, {}
    for variant in VARIANTS:
        collect(measure(variant, directory), lines, branches)
    write_missing(os.path.join(directory, "missing.txt"), lines, branches)
    print(f"{'':28}{'lines':>17}{'branches':>17}")
    for name in sorted({key[0] for key in lines}) + [None]:
        print(f"{name or 'total':28}{percent(name, lines)[0]:>17}{percent(name, branches)[0]:>17}")
    short = [kind for kind, what in (("lines", lines), ("branches", branches))
             if percent(None, what)[1] < LEAST[kind]]
    for kind in short:
        print(f"coverage: fewer than {LEAST[kind]} % of {kind}; see {directory}/missing.txt")
    return bool(short)


if __name__ == "__main__":
    sys.exit(main())
