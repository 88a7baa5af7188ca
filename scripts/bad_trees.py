#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""bad_trees.py - boots with a device tree that is none, broken or hopeless.

QEMU and the firmware would not pass such a tree on, so it is put into place by gdb: the
machine stops at the kernel's first instruction, the tree in memory is written
over (or its address taken away), and the machine goes on. Expected: one clear
line, then the machine stops or powers off; never a trap or silence where there is a console. Where
there is none, gdb looks where it stopped, and for whom.
"""
import dataclasses, os, re, socket, struct, subprocess, tempfile, time

import qemu

ENTRY = {"riscv64": 0x80200000, "aarch64": 0x40200000}
TREE_REGISTER = {"riscv64": "a1", "aarch64": "x0"}
TRAP = r"PANIC: .* at pc 0x|early trap"
LOOKS = 20  # at where a silent kernel is, every other second


@dataclasses.dataclass
class Case:
    arch: str
    edit: str  # a name of EDITS
    expect: str  # a regular expression of the line; "": silence, and a stop
    machine: str = ""


def fdtput(path, *args):
    subprocess.run(["fdtput", *args[:1], path, *args[1:]], check=True)


def edit_truncated(path):
    data = bytearray(open(path, "rb").read())
    struct.pack_into(">I", data, 4, 64)  # totalsize
    open(path, "wb").write(data)


def edit_magic(path):
    data = bytearray(open(path, "rb").read())
    data[0:4] = b"\x12\x34\x56\x78"
    open(path, "wb").write(data)


def memory_node(path):
    names = subprocess.run(["fdtget", "-l", path, "/"], check=True, capture_output=True, text=True).stdout.split()
    return "/" + next(n for n in names if n.startswith("memory"))


def edit_no_memory(path):
    fdtput(path, "-r", memory_node(path))


def ram_base(path):
    return 0x80000000 if "riscv" in path else 0x40000000


def edit_tiny(path):
    fdtput(path, "-tx", memory_node(path), "reg", "0", hex(ram_base(path)), "0", "0x4000")


def reserve(path, *ranges):
    for i, (start, size) in enumerate(ranges):
        node = "/reserved-memory/mica@%d" % i
        subprocess.run(["fdtput", "-cp", path, node], check=True)
        fdtput(path, "-tx", node, "reg", "0", hex(start), "0", hex(size))
    for name in ("#address-cells", "#size-cells"):
        fdtput(path, "-tu", "/reserved-memory", name, "2")
    subprocess.run(["fdtput", path, "/reserved-memory", "ranges"], check=True)


def edit_overlapping(path):
    base = ram_base(path)
    reserve(path, (base + 0x2000000, 0x400000), (base + 0x2200000, 0x400000), (base + 0x2100000, 0x1000))


def edit_stdout(path):
    fdtput(path, "-ts", "/chosen", "stdout-path", "/cpus")


def edit_unusable(path):
    """The console again, in front of the real one, but with too few registers."""
    name, base = ("ns16550a", 0x10000000) if "riscv" in path else ("arm,pl011", 0x9000000)
    node = "/console@%x" % base
    subprocess.run(["fdtput", "-cp", path, node], check=True)
    fdtput(path, "-ts", node, "compatible", name)
    fdtput(path, "-tx", node, "reg", "0", hex(base), "0", "4")
    fdtput(path, "-ts", "/chosen", "stdout-path", node)


def edit_timebase(path):
    fdtput(path, "-d", "/cpus", "timebase-frequency")
    reserve(path, (ram_base(path), 0x80000))  # the firmware, which is not asked


def edit_fast(path):
    fdtput(path, "-tx", "/cpus", "timebase-frequency", "8", "0")
    reserve(path, (ram_base(path), 0x80000))


def edit_clock(path):
    fdtput(path, "-tu", "/timer", "clock-frequency", "62500000")


def edit_usable(path):
    start = ram_base(path) + (256 << 20)
    fdtput(path, "-tx", memory_node(path), "linux,usable-memory", "0", hex(start), "0", hex(128 << 20))


EDITS = {"truncated": edit_truncated, "bad magic": edit_magic, "no memory node": edit_no_memory,
         "16 KiB of memory": edit_tiny, "overlapping reserved regions": edit_overlapping,
         "console that is none": edit_stdout, "console without registers": edit_unusable, "no counter rate": edit_timebase,
         "absurd counter rate": edit_fast, "rate in the tree only": edit_clock, "image not in memory": edit_usable}

# An instruction that leaves the CPU as firmware might have, and its x2: msr ICC_AP1R0_EL1, x2; msr CNTFRQ_EL0, x2.
EXECUTED = {"active priority": (0xd518c902, 1), "rate in the tree only": (0xd51be002, 0)}

# Trees that the firmware takes, and adds its own reservation to.
THROUGH_FIRMWARE = ("overlapping reserved regions", "console that is none", "console without registers", "image not in memory")


def cases():
    c = {}
    for arch in ("riscv64", "aarch64"):
        silent = arch == "aarch64"  # without a tree nothing is known of a console
        for edit, expect in (("none", "" if silent else "device tree .*: none given"),
                             ("bad magic", "" if silent else "device tree .*: bad magic"),
                             ("truncated", "" if silent else "device tree .*: "),
                             ("no memory node", "memory: .*no .*memory"),
                             ("16 KiB of memory", "memory: "),
                             ("overlapping reserved regions", "power off, status 0"),
                             ("console that is none", "power off, status 0"),
                             ("console without registers", "console@.*: registers (?s:.*)power off, status 0"),
                             ("image not in memory", "power off, status 0")):
            c["%s tree: %s" % (arch, edit)] = Case(arch, edit, expect)
    c["riscv64 tree: no counter rate"] = Case("riscv64", "no counter rate", "time: nothing says")
    c["riscv64 tree: absurd counter rate"] = Case("riscv64", "absurd counter rate", "time: a counter of 34359738368 Hz")
    c["aarch64 tree: rate in the tree only"] = Case("aarch64", "rate in the tree only", "power off, status 0")
    c["aarch64 GICv3: active priority"] = Case("aarch64", "active priority",
                                               r"(?s)\A(?!.*timer: no interrupt).*power off, status 0",
                                               "virt,gic-version=3")
    return c


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def gdb(run, where, port, *lines):
    """What gdb prints; the machine goes on after it. In the folder, for gdb takes no blank in a name."""
    script = os.path.join(where, "gdb")
    with open(script, "w") as f:
        f.write("\n".join(("set confirm off", "set pagination off", "target remote 127.0.0.1:%d" % port, *lines,
                           "detach", "quit")) + "\n")
    p = subprocess.run(["gdb-multiarch", "-nx", "-batch", "-x", script, os.path.abspath(run.dir) + "/mica.elf"],
                       cwd=where, capture_output=True, text=True, timeout=60)
    if p.returncode:
        raise RuntimeError("gdb failed: " + p.stderr[-300:])
    return p.stdout


def put_tree(case, tree):
    """Replace the tree at the kernel's entry, or take its address away."""
    reg = TREE_REGISTER[case.arch]
    lines = ["hbreak *%#x" % ENTRY[case.arch], "continue"]
    if case.edit in EXECUTED:  # in free memory
        instruction, x2 = EXECUTED[case.edit]
        lines += ["set $back = $pc", "set {int}0x50000000 = %#x" % instruction, "set $x2 = %d" % x2,
                  "set $pc = 0x50000000", "stepi", "set $pc = $back", "set $x2 = 0"]
    if case.edit == "none":
        lines += ["set $%s = 0" % reg]
    elif case.edit in EDITS:
        lines += ["restore %s binary $%s" % (os.path.basename(tree), reg)]
    return lines + ["delete"]


def output(p, timeout):
    try:
        out, _ = p.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        p.kill()
        out, _ = p.communicate()
    return out.decode(errors="replace").replace("\r", "")


def judge(case, text):
    if not re.search(case.expect, text):
        return "no line like %r" % case.expect
    return "it trapped" if re.search(TRAP, text) else None


def judge_silent(p, run, where, port):
    """It must stop for good, and in the panic about the tree. A slow host takes a while to get there."""
    stopped = None
    for _ in range(LOOKS):
        time.sleep(2)
        if stopped or p.poll() is not None:
            break
        calls = gdb(run, where, port, "info symbol $pc", "backtrace")
        stopped = re.search(r'^stop\b.*^#\d+ .* in panic \(fmt=.*"device tree', calls, re.M | re.S)
    if p.poll() is not None:
        return "QEMU ended", output(p, 0)
    said = output(p, 0)
    if said:
        return "it is not silent", said
    return None if stopped else "it has not stopped in the panic", calls


def boot(case):
    with tempfile.TemporaryDirectory(prefix="mica.") as where:
        run = qemu.Run(arch=case.arch, dir="build/%s-tlsf" % case.arch, disks=0, append="test=lib/*", machine=case.machine)
        port = free_port()
        args = qemu.command(run, [])
        tree = os.path.join(where, case.arch + ".dtb")
        dump = [a for a in args]
        dump[dump.index("-M") + 1] += ",dumpdtb=" + qemu.quoted(tree)
        subprocess.run(dump, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        if case.edit in EDITS:
            EDITS[case.edit](tree)
        if case.edit in THROUGH_FIRMWARE:
            status, text = qemu.execute(args + ["-dtb", tree], 60)
            return judge(case, text), text
        with subprocess.Popen(args + ["-S", "-gdb", "tcp:127.0.0.1:%d" % port], stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as p:
            try:
                gdb(run, where, port, *put_tree(case, tree))
                if not case.expect:
                    return judge_silent(p, run, where, port)
                text = output(p, 60)
                return judge(case, text), text
            finally:
                p.kill()
