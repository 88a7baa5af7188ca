#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""ksyms.py: `nm -n` on stdin -> an assembler table of the functions, for symbol_find()."""
import sys

symbols = [line.split() for line in sys.stdin]
base = next((int(s[0], 16) for s in symbols if s[-1] == "__text_start"), 0)
end = next((int(s[0], 16) for s in symbols if s[-1] == "__text_end"), 0)
functions = {}
for s in symbols:
    if len(s) == 3 and s[1] in "tT" and s[2][0] not in "$." and base <= int(s[0], 16) < end:
        functions.setdefault(int(s[0], 16) - base, s[2])
functions.pop(end - base, None)

print('/* SPDX-License-Identifier: MIT */\n.section .ksyms, "a"\n.balign 8')
print(".globl ksyms_count, ksyms_table, ksyms_names")
print("ksyms_count: .quad %d\nksyms_table:" % len(functions))
at = 0
names = []
for offset, name in sorted(functions.items()):
    print(".long %d, %d" % (offset, at))
    names.append('.asciz "%s"' % name)
    at += len(name) + 1
print("ksyms_names:")
print("\n".join(names))
