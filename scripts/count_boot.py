#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""count_boot.py ARCH [MEM [DISKS [ENGINE]]] - instructions from the kernel's entry to the first self-test.

QEMU logs every instruction of the kernel, one by one; firmware is not counted. The kernel is build/ARCH-ENGINE/mica.bin.
"""
import os, re, subprocess, sys, tempfile

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import qemu  # noqa: E402

ENTRY = {"riscv64": 0x80200000, "aarch64": 0x40200000}
HIGH, IMAGE = 0xFFFFFFFF80200000, 0x400000  # where the kernel is linked, and at most its size


def count(arch, mem="512M", disks=2, engine="tlsf"):
    run = qemu.Run(arch=arch, dir="build/%s-%s" % (arch, engine), mem=mem, disks=disks)
    end = qemu.elf_symbols(os.path.join(run.dir, "mica.elf"))["selftest_run"]
    with tempfile.TemporaryDirectory(prefix="mica.") as where:
        log = os.path.join(where, "log")
        os.mkfifo(log)
        args = qemu.command(run, qemu.make_disks(run, where)) + [
            "-singlestep", "-d", "exec,nochain", "-D", log,
            "-dfilter", "%#x+%#x,%#x+%#x" % (ENTRY[arch], IMAGE, HIGH, IMAGE)]
        with subprocess.Popen(args, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as p:
            n = 0
            with open(log) as lines:
                for line in lines:
                    m = re.search(r"\[[0-9a-f]+/([0-9a-f]+)/", line)
                    n += bool(m)
                    if m and int(m.group(1), 16) == end:
                        break
            p.kill()
    return n


def main():
    arch, mem, disks, engine = (sys.argv[1:] + ["riscv64", "512M", "2", "tlsf"][len(sys.argv) - 1:])[:4]
    print("%s %s %s, %s disks: %d instructions to the first self-test" % (
        arch, engine, mem, disks, count(arch, mem, int(disks), engine)))


if __name__ == "__main__":
    main()
