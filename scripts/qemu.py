#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""qemu.py - the one builder of Mica's QEMU command line, and the judge of a run.

  qemu.py ARCH --dir BUILD_DIR [--mem 512M] [--smp 1] [--disks 2] [--cpu C] [--machine M]
          [--append TEXT] [--elf] [--timeout S] [-- MORE QEMU ARGUMENTS]

On a terminal QEMU gets the terminal and Mica a prompt. Without one (stdin is no
terminal, or CI=true) the run is judged: every test that is in the ELF must have
reported, none may have failed, the checksums of the disks must be those of the
files, and the scratch disk must hold the pattern, byte by byte, after power-off.
"""
import argparse, dataclasses, hashlib, os, re, select, shutil, struct, subprocess, sys, tempfile, threading, time

MACHINE = {"riscv64": "virt", "aarch64": "virt"}
CPU = {"riscv64": "rv64", "aarch64": "cortex-a53"}
SCRATCH_ID = "mica-scratch"
LABEL = "mica"
DISK_BYTES = 8 << 20
SCRATCH_BYTES = 1 << 20
SELFTEST_BYTES = 24  # sizeof(struct selftest)


@dataclasses.dataclass
class Run:
    arch: str
    dir: str
    mem: str = "512M"
    smp: int = 1
    disks: int = 2
    label: str = LABEL  # of the file system on the first
    cpu: str = ""
    machine: str = ""
    append: str = ""
    elf: bool = False
    timeout: float = 120
    extra: tuple = ()
    prompt: bytes = b""  # what the firmware asks, and what a person would type then
    answer: bytes = b""
    patient: bool = False  # the console loses what is typed before it is asked for
    panics: str = ""  # a regular expression: it must panic with such text, and nothing else is judged
    expect: tuple = ()  # regular expressions that the output must match besides
    zero_disks: tuple = ()  # (size, block) in bytes: disks that read as zeroes; what is no whole block cannot be read
    powers_off: bool = True  # False: the firmware has no way to
    kernel: bool = True  # False: something else in `extra` loads it


def make_fs_disk(path, label):
    """A real ext4 file system with files of known content, made by mkfs.ext4."""
    with tempfile.TemporaryDirectory() as root:
        for i in range(8):
            with open(os.path.join(root, "file%d" % i), "wb") as f:
                f.write(hashlib.sha256(b"%d" % i).digest() * (1000 * (i + 1)))
        with open(path + ".tmp", "wb") as f:
            f.truncate(DISK_BYTES)
        env = dict(os.environ, PATH=os.environ["PATH"] + ":/usr/sbin:/sbin")
        subprocess.run(["mkfs.ext4", "-q", "-F", "-L", label, "-d", root, path + ".tmp"], check=True, env=env)
    os.replace(path + ".tmp", path)


master_lock = threading.Lock()


def master_disk(label):
    path = os.path.join("build", "disk%s.img" % ("" if label == LABEL else "-" + label.encode().hex()))
    with master_lock:
        if not os.path.exists(path):
            os.makedirs("build", exist_ok=True)
            make_fs_disk(path, label)
    return path


def make_disks(run, where):
    """Disk 0 is the file system, disk 1 the scratch disk, further ones are read-only copies."""
    master = master_disk(run.label)
    disks = []
    for i in range(run.disks):
        path = os.path.join(where, "disk%d.img" % i)
        if i == 1:
            with open(path, "wb") as f:
                f.truncate(SCRATCH_BYTES)
        else:
            shutil.copyfile(master, path)
        disks.append((path, SCRATCH_ID if i == 1 else "mica-disk%d" % i, i > 1))
    return disks


def quoted(path):
    """A path as the value of one of QEMU's options, where a comma ends it."""
    return path.replace(",", ",,")


def command(run, disks, prompt=False):
    args = ["qemu-system-" + run.arch, "-M", run.machine or MACHINE[run.arch], "-m", run.mem, "-smp", str(run.smp),
            "-nographic", "-net", "none"]
    if run.cpu or not run.machine.startswith(("sifive", "microchip", "xlnx")):
        args += ["-cpu", run.cpu or CPU[run.arch]]
    if run.kernel:
        image = os.path.join(run.dir, "mica.elf" if run.elf else "mica.bin")
        if not os.path.exists(image):
            raise FileNotFoundError("there is no %s: make kernel with the variables of this run" % image)
        args += ["-kernel", image]
        append = (run.append + (" prompt" if prompt else "")).strip()
        if append:
            args += ["-append", append]
    for i, (path, serial, read_only) in enumerate(disks):
        args += ["-drive", "if=none,id=d%d,format=raw,file=%s%s" % (i, quoted(path), ",readonly=on" if read_only else ""),
                 "-device", "virtio-blk-device,drive=d%d,serial=%s" % (i, serial)]
    for i, (size, block) in enumerate(run.zero_disks):
        args += ["-blockdev", "driver=null-co,read-zeroes=on,node-name=z%d,size=%d" % (i, size), "-device",
                 "virtio-blk-device,drive=z%d,logical_block_size=%d,physical_block_size=%d" % (i, block, block)]
    return args + list(run.extra)


def elf_symbols(path):
    """name -> value of an ELF64 little-endian file."""
    data = open(path, "rb").read()
    shoff, = struct.unpack_from("<Q", data, 40)
    shentsize, shnum = struct.unpack_from("<HH", data, 58)
    sections = [struct.unpack_from("<IIQQQQIIQQ", data, shoff + i * shentsize) for i in range(shnum)]
    symbols = {}
    for s in sections:
        if s[1] != 2:
            continue
        names = sections[s[6]][4]
        for at in range(s[4], s[4] + s[5], 24):
            name, _, _, _, value, _ = struct.unpack_from("<IBBHQQ", data, at)
            end = data.index(b"\0", names + name)
            symbols[data[names + name:end].decode()] = value
    return symbols


def count_tests(run):
    s = elf_symbols(os.path.join(run.dir, "mica.elf"))
    return (s["__stop_selftests"] - s["__start_selftests"]) // SELFTEST_BYTES


def pattern(nbytes):
    return b"".join(struct.pack("<Q", (o + 1) * 0x9E3779B97F4A7C15 & (2**64 - 1)) for o in range(0, nbytes, 8))


def judge(run, text, status, disks, scratch_before):
    """What is wrong with a run, in words; None when nothing is."""
    boot_text = text.split("mica> ")[0]  # what is typed at the prompt may run tests again
    results = re.findall(r"^(ok|not ok) (\d+) (\S+)(.*)$", boot_text, re.M)
    failed = [r[2] for r in results if r[0] != "ok"]
    if run.panics:
        return None if re.search("PANIC.*" + run.panics, text, re.S) else "no panic with %r" % run.panics
    plan = re.search(r"^1\.\.(\d+)\s*$", text, re.M)
    end = re.search(r"^mica: power off, status (\d+)", text, re.M)
    if "PANIC" in text:
        return "panic: " + re.search(r"PANIC: (.*)", text).group(1).strip()
    if not plan:
        return "no test plan"
    if failed:
        return "failed: " + " ".join(failed)
    expected = int(plan.group(1)) if "test=" in run.append else count_tests(run)
    if len(results) != expected or int(plan.group(1)) != expected:
        return "%d results for %d tests" % (len(results), expected)
    if not end or end.group(1) != "0":
        return "no power-off with status 0"
    if status != 0:
        return "QEMU's exit status is %s" % status
    missing = [e for e in run.expect if not re.search(e, text, re.M)]
    if missing:
        return "no line like %r" % missing[0]
    seen = dict(re.findall(r"^disk (\w+) sha256 ([0-9a-f]{64})", text, re.M))
    wanted = []
    for (path, serial, _), before in zip(disks, scratch_before):
        data = open(path, "rb").read()
        if serial == SCRATCH_ID:
            if data != pattern(len(data)):
                return "the scratch disk does not hold the pattern"
            data = before
        wanted.append(hashlib.sha256(data).hexdigest())
    wanted += [hashlib.sha256(bytes(size - size % block)).hexdigest() for size, block in run.zero_disks]
    if sorted(seen.values()) != sorted(wanted):
        return "checksums of the disks differ: %s, not %s" % (sorted(seen.values()), sorted(wanted))
    return None


def totals(text):
    """(passed, failed, skipped) of the self-tests in an output."""
    results = re.findall(r"^(ok|not ok) \d+ \S+(.*)$", text, re.M)
    skipped = sum("# SKIP" in r[1] for r in results)
    failed = sum(r[0] != "ok" for r in results)
    return len(results) - failed - skipped, failed, skipped


# The kernel's last line. A machine that cannot be powered off is ended after it.
LAST_LINE = re.compile(rb"^mica: power off, status \d+\r?$", re.M)


def typing(run):
    """[(what the machine shows, what is typed then)]."""
    if not run.patient:
        return [(run.prompt, run.answer)] if run.prompt else []
    steps, line = [], b""
    for c in run.answer:
        steps.append((run.prompt + line, bytes([c])))
        line = b"" if c == ord("\r") else line + bytes([c])
    return steps


def type_in(p, text):
    p.stdin.write(text)
    p.stdin.flush()


def read_or_retype(p, typed):
    """The next output. What was typed before the machine asked for it may be lost: again, if nothing comes of it."""
    while typed and not select.select([p.stdout], [], [], 3)[0]:
        type_in(p, typed)
    return os.read(p.stdout.fileno(), 65536)


def execute(args, timeout, steps=(), powers_off=True, patient=False):
    """(exit status or None after the timeout, output). Types as typing() says."""
    steps, seen, typed = list(steps), 0, b""
    with subprocess.Popen(args, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as p:
        timer = threading.Timer(timeout, p.kill)
        timer.start()
        out = b""
        stopped = False
        while chunk := read_or_retype(p, typed if patient else b""):
            out += chunk
            if steps and steps[0][0] in out[seen:]:
                typed, seen = steps.pop(0)[1], len(out)
                if patient:
                    time.sleep(0.1)  # until the machine asks for it
                type_in(p, typed)
            if not powers_off and LAST_LINE.search(out[-4096:]):
                stopped = True
                p.kill()
        p.wait()
        expired = not timer.is_alive() and not stopped
        timer.cancel()
    status = 0 if stopped else p.returncode
    return None if expired else status, out.decode(errors="replace").replace("\r", "")


def boot(run):
    """Run and judge: (what is wrong or None, output)."""
    with tempfile.TemporaryDirectory(prefix="mica.") as where:
        disks = make_disks(run, where)
        before = [open(d[0], "rb").read() for d in disks]
        status, text = execute(command(run, disks), run.timeout, typing(run), run.powers_off, run.patient)
        if status is None:
            return "no end after %g s" % run.timeout, text
        return judge(run, text, status, disks, before), text


def main():
    argv, extra = sys.argv[1:], []
    if "--" in argv:
        extra = argv[argv.index("--") + 1:]
        argv = argv[:argv.index("--")]
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("arch", choices=sorted(MACHINE))
    p.add_argument("--dir", required=True)
    p.add_argument("--elf", action="store_true")
    p.add_argument("--show", action="store_true", help="only print the command line")
    for f in dataclasses.fields(Run):
        if f.name in ("mem", "smp", "disks", "cpu", "machine", "append", "timeout"):
            p.add_argument("--" + f.name, type=f.type, default=f.default)
    a = p.parse_args(argv)
    run = Run(**{k: v for k, v in vars(a).items() if k != "show"}, extra=tuple(extra))
    if a.show:
        print(" ".join(command(run, [])))
        return 0
    if sys.stdin.isatty() and os.environ.get("CI") != "true":
        where = os.path.join("build", "disks-" + run.arch)
        os.makedirs(where, exist_ok=True)
        print("Mica's prompt follows the self-tests. Ctrl-A X ends QEMU.")
        return subprocess.call(command(run, make_disks(run, where), prompt=True))
    wrong, text = boot(run)
    print(text)
    print("qemu-%s: %s" % (run.arch, wrong or "all is well"))
    return 1 if wrong else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except FileNotFoundError as e:
        sys.exit("qemu.py: %s" % e)
