#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""boot_matrix.py [GLOB] - boots every cell of the matrix that docs/testing.md lists.

The kernels are in build/ARCH-ENGINE[-llvm]; `make test` builds them. A cell is a
machine and what must come of it; one runs on each CPU. Ends in `N passed, N failed`.
"""
import concurrent.futures, dataclasses, fnmatch, functools, os, re, subprocess, sys, tempfile, time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import bad_trees  # noqa: E402
import qemu  # noqa: E402

MODERN = ("-global", "virtio-mmio.force-legacy=false")
LOG_DIR = "build/boot-logs"


def kernel_dir(arch, engine="tlsf", variant=""):
    return "build/%s-%s%s" % (arch, engine, variant)


def cell(arch, engine="tlsf", variant="", **kw):
    return qemu.Run(arch=arch, dir=kernel_dir(arch, engine, variant), **kw)


def initrd(nbytes=300000):
    path = "build/initrd.img"
    with open(path, "wb") as f:
        f.write(b"\xa5" * nbytes)
    return ("-initrd", path)


def big(size):
    return ("-object", "memory-backend-ram,id=mb,size=%s,reserve=off" % size)


NUMA = ("-object", "memory-backend-ram,id=m0,size=256M", "-object", "memory-backend-ram,id=m1,size=256M",
        "-numa", "node,nodeid=0,memdev=m0", "-numa", "node,nodeid=1,memdev=m1")


def through_uboot(arch):
    """U-Boot gets its booti command typed; the Image lies in memory, put there by the loader device."""
    image, firmware, address = {
        "riscv64": ("-kernel", "/usr/lib/u-boot/qemu-riscv64_smode/uboot.elf", 0x84000000),
        "aarch64": ("-bios", "/usr/lib/u-boot/qemu_arm64/u-boot.bin", 0x44000000)}[arch]
    loader = "loader,file=%s,addr=%#x,force-raw=on" % (os.path.join(kernel_dir(arch), "mica.bin"), address)
    return cell(arch, kernel=False, extra=(image, firmware, "-device", loader),
                prompt=b"Hit any key", answer=b"\n\nbooti %#x - ${fdtcontroladdr}\n" % address)


def own_tree(run, name, *changes):
    """The tree that QEMU makes for a run, with properties put in or changed: arguments of fdtput."""
    tree = "build/%s.dtb" % name
    os.makedirs("build", exist_ok=True)
    args = qemu.command(run, [])
    args[args.index("-M") + 1] += ",dumpdtb=" + tree
    subprocess.run(args, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for change in changes:
        subprocess.run(["fdtput", *change[:-1], tree, *change[-1]], check=True)
    return ("-dtb", tree)


def icicle_kit(name="icicle-kit", *changes):
    """A board for which QEMU makes no tree. The driver of the console, which it logs nothing of, finds it usable."""
    tree = "build/%s.dtb" % name
    subprocess.run(["dtc", "-q", "-O", "dtb", "-o", tree, "tests/dts/icicle-kit.dts"], check=True)
    for change in changes:
        subprocess.run(["fdtput", *change[:-1], tree, *change[-1]], check=True)
    return cell("riscv64", machine="microchip-icicle-kit", smp=5, mem="2G", disks=0, powers_off=False,
                extra=("-dtb", tree), expect=(r"^ok \d+ kernel/irq_storm # \d+ us", r"(?s)\A(?!.*serial@\w+: )"))


def icicle_kit_halves():
    """The same, accessed in halves of words, and with the registers not at the start of what the node has."""
    uart = "/soc/serial@20000000"
    return icicle_kit("icicle-kit-halves", ("-t", "u", [uart, "reg-io-width", "2"]),
                      ("-t", "x", [uart, "reg-offset", "1000"]),
                      ("-t", "x", [uart, "reg", "0", "1ffff000", "0", "1400"]))


def noncoherent_tree():
    """A machine whose devices do not see the caches. QEMU has none, so the property is put in."""
    run = cell("riscv64", cpu="rv64,svpbmt=true", disks=0, expect=("pool of .* KiB, not cached",))
    return dataclasses.replace(run, extra=own_tree(run, "noncoherent", (["/soc", "dma-noncoherent"],)))


def isa_list_tree():
    """The same, of a CPU whose extensions stand in the list only, which took the place of the string."""
    run = cell("riscv64", cpu="rv64,svpbmt=true", disks=0, expect=(", svpbmt", "pool of .* KiB, not cached"))
    return dataclasses.replace(run, extra=own_tree(
        run, "isa-list", (["/soc", "dma-noncoherent"],), ("-d", ["/cpus/cpu@0", "riscv,isa"]),
        ("-t", "s", ["/cpus/cpu@0", "riscv,isa-extensions", *"imafdc", "zicsr", "svpbmt"])))


def narrow_tree():
    """The same, with RAM above 4 GiB that the disks do not reach: the pool must lie below."""
    run = cell("riscv64", cpu="rv64,svpbmt=true", mem="6G", expect=("pool of .* KiB, not cached",))
    return dataclasses.replace(run, extra=own_tree(
        run, "narrow", (["/soc", "dma-noncoherent"],), ("-t", "x", ["/soc", "dma-ranges", *"000010"])))


# The first two of QEMU's slots, where the disks are, and a line that nothing is wired to.
SLOTS = {"riscv64": ("/soc/virtio_mmio@10008000", "/soc/virtio_mmio@10007000"),
         "aarch64": ("/virtio_mmio@a003e00", "/virtio_mmio@a003c00")}
LOST_IRQ = {"riscv64": ("60",), "aarch64": ("0", "100", "1")}


def lost_irq(arch):
    """
    Disks whose interrupt never comes, because the tree is wrong about the line. They take 10 ms for a
    request: on a quick host, one that takes none is done before anybody waits for it.
    """
    run = cell(arch, expect=("no interrupt came: polled",))
    changes = [("-t", "u", [node, "interrupts", *LOST_IRQ[arch]]) for node in SLOTS[arch]]
    return dataclasses.replace(run, extra=own_tree(run, "lost-irq-" + arch, *changes) + (
        "-set", "drive.d0.throttling.iops-total=100", "-set", "drive.d1.throttling.iops-total=100"))


# The node that names the controller of the slots, and what the map below has for each: unit address and interrupt, then
# the controller, and the line there, after an address on AArch64.
NEXUS_MAP = {"riscv64": ("/soc/virtio_mmio@10008000", "0 10008000 1 {0} 8 0 10007000 1 {0} 7"),
             "aarch64": ("/", "0 a003e00 1 {0} 0 0 0 2f 1 0 a003c00 1 {0} 0 0 0 2e 1")}


def nexus(arch):
    """Disks behind a nexus. All say that their interrupt is 1; the map tells by the address which line that is."""
    run = cell(arch, append="prompt test=lib/*", prompt=b"mica> ", answer=b"irq\rpoweroff\r",
               expect=("virtio-blk, [1-9].*\n.*virtio-blk, [1-9]", r"(?s)\A(?!.*polled)"))
    node, lines = NEXUS_MAP[arch]
    controller = subprocess.check_output(
        ["fdtget", "-t", "x", own_tree(run, "nexus-" + arch)[1], node, "interrupt-parent"], text=True).strip()
    changes = [("-t", "x", ["/nexus", *p.split()]) for p in (
        "phandle 9999", "#address-cells 2", "#interrupt-cells 1", "interrupt-map " + lines.format(controller))]
    for slot in SLOTS[arch]:
        changes += [("-t", "x", [slot, "interrupt-parent", "9999"]), ("-t", "x", [slot, "interrupts", "1"])]
    return dataclasses.replace(run, extra=own_tree(run, "nexus-" + arch, ("-c", ["/nexus"]), *changes))


def small_slot(arch):
    """The slot behind the only disk has fewer registers than a device has: it is passed over, and a line says why."""
    slot = SLOTS[arch][1]
    run = cell(arch, disks=1, append="test=lib/*", expect=(slot.split("/")[-1] + ": reg is .*too small",))
    reg = ("-t", "x", [slot, "reg", "0", slot.split("@")[1], "0", "20"])
    return dataclasses.replace(run, extra=own_tree(run, "small-slot-" + arch, reg))


def no_timer():
    """A machine that does not say where its timer's interrupt is: nothing ends a sleep, so disks are polled."""
    run = cell("aarch64", expect=("timer: no interrupt",))
    return dataclasses.replace(run, extra=own_tree(
        run, "no-timer", ("-t", "s", ["/timer", "compatible", "none"])))


# Interrupts of the timer's node in QEMU's tree: the cells of each, and the name that the binding has for it.
TIMER_IRQS = {"sec-phys": (1, 13, 260), "phys": (1, 14, 260), "virt": (1, 11, 260), "hyp-phys": (1, 10, 260)}


def timer_tree(run, name, order, names=(), **wrong):
    """The timer's interrupts in another order, with other names, or other cells."""
    cells = [str(c) for irq in order for c in wrong.get(irq, TIMER_IRQS[irq])]
    changes = [("-t", "u", ["/timer", "interrupts", *cells])]
    if names:
        changes.append(("-t", "s", ["/timer", "interrupt-names", *names]))
    return dataclasses.replace(run, extra=own_tree(run, name, *changes))


def timer_names():
    """A machine whose virtual timer is not the third of the node, but named."""
    order = ("phys", "virt", "hyp-phys")
    return timer_tree(cell("aarch64", expect=(r"^ok \d+ kernel/timer_wakes_when_asked # \d+ us",)),
                      "timer-names", order, order)


def wrong_timer():
    """A machine that is wrong about its timer's interrupt: no sleep relies on it, that of the prompt neither."""
    run = cell("aarch64", append="prompt test=lib/*", prompt=b"mica> ", answer=b"irq\rpoweroff\r",
               expect=("timer: no interrupt", "timer: 0, spurious: 0"))
    return timer_tree(run, "wrong-timer", TIMER_IRQS, virt=(1, 5, 260))


# What a person types at the prompt, with an error of each kind, and what must come of it.
TYPED = ["hepl", "help", "mem", "pages", "heap", "dma", "walk", "walk 0xffffffff80200000", "blk", "blk vda 0", "irq",
         "dt", "test lib/*", "blkx\x7f", "poweroff"]
SHOWN = ("hepl: no such command", "usage: walk ADDR", "physical 0x.*r-x, normal", r"vda: \d+ sectors", "all invariants hold",
         "virtio,mmio", r"RAM .* KiB", "spurious: 0")


def prompt_cell(arch):
    return cell(arch, append="prompt test=lib/*", prompt=b"mica> ", expect=SHOWN,
                answer="".join(t + "\r" for t in TYPED).encode())


def odd_disks(arch):
    """A disk without a sector, one whose last block is not whole, and one whose blocks are larger than a request."""
    refused = ("-blockdev", "driver=null-co,node-name=big,size=1048576", "-device",
               "virtio-blk-device,drive=big,logical_block_size=131072,physical_block_size=131072")
    return cell(arch, disks=0, zero_disks=((0, 512), (1000448, 4096)), extra=refused,
                expect=(" 0 sectors", " 1952 sectors", "virtio_mmio@.*: no request can take .* 131072 bytes"))


def panic_cell(arch):
    """The backtrace of a panic names who called for it."""
    return cell(arch, disks=0, append="prompt test=lib/*", prompt=b"mica> ", answer=b"panic\r",
                panics=r"Backtrace:\n  #0 \w+ cmd_panic\+")


def fault_cell(arch, symbol, offset, what, panics):
    """A fault asked for at the prompt, at an address of the image."""
    va = qemu.elf_symbols(os.path.join(kernel_dir(arch), "mica.elf"))[symbol] + offset
    return cell(arch, disks=0, append="prompt test=lib/*", prompt=b"mica> ", answer=b"panic %#x%s\r" % (va, what),
                panics=panics)


def guard_cell(arch):
    """A stack overflow is called so, and its guard page."""
    return fault_cell(arch, "__emergency_stack_guard", 4088, b"", "stack overflow: .*guard page of the emergency stack")


def stack_jump_cell(arch):
    """A fault near the stack pointer that is none."""
    return fault_cell(arch, "__boot_stack_top", -2048, b" x", r"(?<=PANIC: )\w[\w ]*fault, .*: not executable")


def boot_cell(run):
    return qemu.boot(run() if callable(run) else run)


def cells():
    """Name -> a run, or what makes it, where that takes a run of QEMU of its own."""
    c = {}
    for arch in ("riscv64", "aarch64"):
        for engine in ("tlsf", "slab", "buddy"):
            c["%s %s" % (arch, engine)] = cell(arch, engine)
        c[arch + " clang"] = cell(arch, variant="-llvm")
        c[arch + " debug"] = cell(arch, variant="-debug")
        for mem in ("64M", "128M", "3G", "8G"):
            c["%s %s" % (arch, mem)] = cell(arch, mem=mem)
        c[arch + " 1 TiB"] = cell(arch, mem="1T", cpu={"aarch64": "max"}.get(arch, ""),
                                  machine="virt,memory-backend=mb", extra=big("1T"))
        c[arch + " through U-Boot"] = through_uboot(arch)
        c[arch + " modern virtio"] = cell(arch, extra=MODERN)
        c[arch + " no disk"] = cell(arch, disks=0)
        c[arch + " lost interrupts"] = functools.partial(lost_irq, arch)
        c[arch + " nexus"] = functools.partial(nexus, arch)
        c[arch + " small slot"] = functools.partial(small_slot, arch)
        c[arch + " one disk"] = cell(arch, disks=1, label="mica\x1b[", expect=(r'label "mica\?\["',))
        c[arch + " three disks"] = cell(arch, disks=3)
        c[arch + " odd disks"] = odd_disks(arch)
        c[arch + " initrd"] = cell(arch, extra=initrd())
        c[arch + " two NUMA nodes"] = cell(arch, mem="512M", smp=2, extra=NUMA)
        c[arch + " prompt"] = prompt_cell(arch)
        c[arch + " panic"] = panic_cell(arch)
        c[arch + " guard page"] = functools.partial(guard_cell, arch)
        c[arch + " jump to the stack"] = functools.partial(stack_jump_cell, arch)
        c[arch + " 4 CPUs"] = cell(arch, smp=4)
    # QEMU 7.2 gives every CPU Sv57, so kernels that do not try it stand for CPUs without.
    c["riscv64 sifive-u54"] = cell("riscv64", cpu="sifive-u54")
    c["riscv64 Sv39"] = cell("riscv64", variant="-sv39", cpu="sifive-u54")
    c["riscv64 Sv48"] = cell("riscv64", variant="-sv48")
    c["riscv64 svpbmt"] = cell("riscv64", cpu="rv64,svpbmt=true")
    c["riscv64 svpbmt, not coherent"] = noncoherent_tree
    c["riscv64 svpbmt, in a list"] = isa_list_tree
    c["riscv64 svpbmt, 32 bits reach"] = narrow_tree
    c["riscv64 spike"] = cell("riscv64", machine="spike", mem="256M", disks=0, powers_off=False, append="prompt",
                              prompt=b"mica> ", answer=b"mem\rpoweroff\r", patient=True, expect=("RAM .* KiB",))
    c["riscv64 sifive_u"] = cell("riscv64", machine="sifive_u", smp=2, mem="256M", disks=0, powers_off=False)
    c["riscv64 microchip-icicle-kit"] = icicle_kit
    c["riscv64 microchip-icicle-kit, halves"] = icicle_kit_halves
    for cpu in ("cortex-a57", "cortex-a72", "max"):
        c["aarch64 " + cpu] = cell("aarch64", cpu=cpu)
    c["aarch64 no timer"] = no_timer
    c["aarch64 wrong timer"] = wrong_timer
    c["aarch64 named timers"] = timer_names
    c["aarch64 GICv3"] = cell("aarch64", machine="virt,gic-version=3")
    c["aarch64 EL3 GICv3"] = cell(
        "aarch64", machine="virt,secure=on,gic-version=3", kernel=False, powers_off=False,
        extra=("-device", "loader,file=%s/mica.elf,cpu-num=0" % kernel_dir("aarch64")))
    c["aarch64 EL2"] = cell("aarch64", machine="virt,virtualization=on")
    c["aarch64 EL2 GICv3 max"] = cell("aarch64", cpu="max", machine="virt,gic-version=3,virtualization=on")
    c["aarch64 bare ELF"] = cell("aarch64", elf=True)
    c["aarch64 xlnx-versal-virt"] = cell("aarch64", machine="xlnx-versal-virt", mem="4G", smp=4, disks=0)
    return c


def run_one(boot, name, case):
    start = time.monotonic()
    try:
        wrong, text = boot(case)
    except Exception as e:  # a cell that cannot be run has failed; the others go on
        wrong, text = "%s: %s" % (type(e).__name__, e), ""
    return name, wrong, text, time.monotonic() - start


def main():
    glob = sys.argv[1] if len(sys.argv) > 1 else "*"
    chosen = [(boot_cell, n, r) for n, r in cells().items() if fnmatch.fnmatch(n, glob)]
    chosen += [(bad_trees.boot, n, r) for n, r in bad_trees.cases().items() if fnmatch.fnmatch(n, glob)]
    if not chosen:
        sys.exit("boot_matrix.py: no cell is called '%s'" % glob)
    passed = failed = 0
    os.makedirs(LOG_DIR, exist_ok=True)
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count() or 2) as pool:
        for future in concurrent.futures.as_completed([pool.submit(run_one, *t) for t in chosen]):
            name, wrong, text, seconds = future.result()
            with open(os.path.join(LOG_DIR, re.sub(r"\W+", "-", name) + ".log"), "w") as f:
                f.write(text)
            print("%s boot: %-32s %5.1f s%s" % ("FAIL" if wrong else "ok  ", name, seconds,
                                                "  " + wrong if wrong else ""), flush=True)
            if wrong:
                failed += 1
                print("\n".join("    | " + line for line in text.splitlines()[-25:]), flush=True)
            else:
                passed += 1
    print("boot matrix: %d of %d cells as they should be (logs: %s)" % (passed, passed + failed, LOG_DIR))
    with open("build/boot.count", "w") as f:
        f.write("%d %d\n" % (passed, failed))
    return failed != 0


if __name__ == "__main__":
    sys.exit(main())
