#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""bench_import.py FOREIGN... BENCH_DIR: traces in the format HBTRACE1 (plain, or compressed with zstd) into ours.

HBTRACE1: eight 64-bit words, of which the first is the magic, the second the number of operations and
the third that of those before the closing frees; then per operation LEB128 varints: slot << 2 | 0, size;
slot << 2 | 2, size, log2(alignment); slot << 2 | 1 for a free. Ours: bench/host/trace.h.
"""
import os, struct, subprocess, sys

import bench_record

CHECKSUM_START, CHECKSUM_PRIME = 0xcbf29ce484222325, 0x100000001b3
ALLOC, FREE = 0, 1
MOST_LOG2 = 47  # what our reader takes, of sizes and alignments


def varint(n):
    out = bytearray()
    while n >= 0x80:
        out.append(n & 0x7f | 0x80)
        n >>= 7
    out.append(n)
    return out


def varints(data):
    value = shift = 0
    for byte in data:
        value |= (byte & 0x7f) << shift
        shift += 7
        if not byte & 0x80:
            yield value
            value = shift = 0


def events(data):
    """(kind, slot, size, log2(alignment)) of every operation before the closing frees."""
    if len(data) < 64 or data[:8] != b"HBTRACE1":
        raise ValueError("not an HBTRACE1 trace")
    numbers = varints(memoryview(data)[64:])

    def number():
        value = next(numbers, None)
        if value is None:
            raise ValueError("truncated: the header promises more operations than there are")
        return value

    for _ in range(struct.unpack_from("<Q", data, 16)[0]):
        word = number()
        if word & 3 == 1:
            yield FREE, word >> 2, 0, 0
        else:
            yield ALLOC, word >> 2, number(), number() if word & 3 == 2 else 0


def convert(data, program):
    stream, last, count, checksum = bytearray(), 0, 0, CHECKSUM_START
    for kind, slot, size, align_log2 in events(data):
        if size >> MOST_LOG2 or align_log2 > MOST_LOG2:
            raise ValueError("damaged: an operation makes no sense")
        block = (slot + 1) * 2  # an address over 8
        step, last, count = block - last, block, count + 1
        stream.append(kind | align_log2 << 2)
        stream += varint(step << 1 if step >= 0 else -step * 2 - 1)
        if kind == ALLOC:
            stream += varint(size)
    for byte in stream:
        checksum = (checksum ^ byte) * CHECKSUM_PRIME & 0xffffffffffffffff
    return struct.pack("<8s32s3Q", b"MICATRC1", program.encode()[:31], count, len(stream), checksum) + stream


def read(path):
    if not path.endswith(".zst"):
        with open(path, "rb") as file:
            return file.read()
    run = subprocess.run(["zstd", "-dc", path], capture_output=True)
    if run.returncode:
        raise ValueError(run.stderr.decode(errors="replace").partition("\n")[0])
    return run.stdout


def import_trace(path, folder):
    name = os.path.basename(path).split(".")[0]
    wrong = bench_record.wrong_name(name)
    if wrong:
        raise ValueError(wrong + ": call the file otherwise")
    trace = convert(read(path), name)
    with open(os.path.join(folder, name + ".trace"), "wb") as out:
        out.write(trace)


def main():
    if len(sys.argv) < 3:
        raise SystemExit(__doc__)
    folder = os.path.join(sys.argv[-1], "traces")
    os.makedirs(folder, exist_ok=True)
    for path in sys.argv[1:-1]:
        try:
            import_trace(path, folder)
        except OSError as e:  # of either file, or there is no zstd
            raise SystemExit("bench_import: %s: %s" % (e.filename or path, e.strerror))
        except ValueError as e:
            raise SystemExit("bench_import: %s: %s" % (path, e))


if __name__ == "__main__":
    main()
