#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""check_symbols.py NM BUILD_DIR... - what the objects really refer to, so that an extern cannot cheat.

mm/ may refer to itself, the port and the compiler's memory functions; dma/ to mm/ besides;
kernel/lib/ to itself. What gcc made one unit of (mm/unit.o) is looked at as that unit.
"""
import glob, os, subprocess, sys

COMPILER = {"memcpy", "memset", "memmove", "memcmp"}
# What the kernel's inline port calls (kernel/port/mm_port_kernel.h).
PORT = {"panic", "mm_port_log", "mm_port_set_attr", "arch_virt_to_phys", "arch_cache_flush"}
MODULES = {"mm": ("mm",), "dma": ("mm", "dma"), "kernel/lib": ("kernel/lib",)}


def symbols(nm, objects):
    defined, undefined = set(), {}
    for o in objects:
        for line in subprocess.run([nm, o], capture_output=True, text=True, check=True).stdout.splitlines():
            kind, name = line.split()[-2:]
            if kind == "U":
                undefined.setdefault(name, o)
            elif kind.isupper():
                defined.add(name)
    return defined, undefined


def objects_of(builds, module):
    found = [o for b in builds for o in glob.glob(os.path.join(b, module, "*.o"))]
    return [o for o in found if os.path.basename(o) == "unit.o"] or found


def main():
    nm, builds = sys.argv[1], sys.argv[2:]
    objects = {m: objects_of(builds, m) for m in ("mm", "dma", "kernel/lib")}
    bad = []
    for module, may in MODULES.items():
        if not objects[module]:
            sys.exit("check_symbols: no objects of %s in %s" % (module, " ".join(builds)))
        known = set().union(*(symbols(nm, objects[m])[0] for m in may)) | COMPILER
        if module != "kernel/lib":
            known |= PORT
        for name, where in symbols(nm, objects[module])[1].items():
            if name not in known:
                bad.append("%s: refers to %s" % (where, name))
    print("\n".join(bad) if bad else "symbols: mm/, dma/ and kernel/lib/ refer to nothing they may not")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
