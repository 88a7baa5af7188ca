#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""check_includes.py - the allowed arrows of docs/architecture.md, and no #ifdef on an architecture.

Every #include of every module is compared with the table below; so is every
architecture macro outside arch/ and linker/. Prints what breaks a rule; exit status 1 then.
With --list it only prints the names of the sources.
"""
import os, re, subprocess, sys

FREESTANDING = {"stdint.h", "stddef.h", "stdbool.h", "stdarg.h", "stdatomic.h", "limits.h"}
KERNEL_FOR_ARCH = {"kernel/log.h", "kernel/panic.h"}
KERNEL_FOR_DRIVERS = KERNEL_FOR_ARCH | {"kernel/lock.h", "kernel/irq.h", "kernel/driver.h", "kernel/time.h",
                                        "kernel/power.h", "kernel/fdt.h"}

# module -> prefixes or names of what it may include with <...>
ALLOWED = {
    "kernel/lib": ("lib/",),
    "mm": ("mm/",),
    "dma": ("mm/", "dma/"),
    "arch": ("arch/", "arch_inline.h", "lib/", "mm/types.h", *KERNEL_FOR_ARCH),
    "drivers": ("arch/", "lib/", "mm/", "dma/", "drivers/", *KERNEL_FOR_DRIVERS),
    "kernel": ("arch/", "lib/", "mm/", "dma/", "drivers/", "kernel/"),
}
TEST_EXTRA = ("selftest/", "mm/", "lib/")
ARCH_MACRO = re.compile(r"^\s*#\s*(?:if|ifdef|ifndef|elif)\b.*(__riscv|__aarch64__|__x86_64__|__arm)")


def module_of(path):
    for m in ("kernel/lib", "mm", "dma", "arch", "drivers", "kernel"):
        if path.startswith(m + "/"):
            return m
    return None


def allowed(path, module, name):
    rules = ALLOWED[module] + (TEST_EXTRA if "/test/" in path else ())
    if path.startswith("kernel/") and name.startswith("selftest/"):
        return True
    return name in FREESTANDING or any(name == r or (r.endswith("/") and name.startswith(r)) for r in rules)


def check(path):
    module = module_of(path)
    for n, line in enumerate(open(path, encoding="utf-8"), 1):
        m = re.match(r"\s*#\s*include\s*<([^>]+)>", line)
        if module and m and not allowed(path, module, m.group(1)):
            yield "%s:%d: %s may not include <%s>" % (path, n, module, m.group(1))
        m = re.match(r'\s*#\s*include\s*"([^"]+)"', line)
        if module and m:
            target = os.path.normpath(os.path.join(os.path.dirname(path), m.group(1)))
            if os.path.exists(target) and module_of(target) != module:
                yield '%s:%d: %s may not include "%s"' % (path, n, module, m.group(1))
        if ARCH_MACRO.match(line) and not path.startswith(("arch/", "linker/")):
            yield "%s:%d: an architecture's macro outside arch/" % (path, n)


def listed():
    """What git knows of; without it (an archive, another user's clone) all that is here but what was built."""
    git = subprocess.run(["git", "ls-files", "-co", "--exclude-standard", "-z"], capture_output=True, text=True)
    if not git.returncode:
        return [f for f in git.stdout.split("\0") if os.path.exists(f)]
    found = (os.path.relpath(os.path.join(where, f)) for where, _, names in os.walk(".") for f in names)
    return [f for f in found if not f.startswith(("build/", ".git/"))]


def main():
    sources = sorted(f for f in listed() if f.endswith((".c", ".h", ".S")))
    if sys.argv[1:] == ["--list"]:
        print("\n".join(sources))
        return 0
    if not sources:
        sys.exit("includes: there are no sources here")
    bad = [b for f in sources for b in check(f)]
    bad += ["%s: no SPDX line" % f for f in sources if "SPDX-License-Identifier: MIT" not in open(f).read(200)]
    print("\n".join(bad) if bad else "includes: %d files keep to the allowed arrows" % len(sources))
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
