#!/bin/sh
# SPDX-License-Identifier: MIT
# setup.sh PURPOSE...   (run, test, bench, cost, format, debug, aarch64, riscv64)
# Says which tools are missing, installs them with apt (as root, or through sudo), and goes on.
# SETUP=no: only say so and stop. On a system without apt: the names of the packages, and stop.
set -eu

# Of an ordinary user it leaves out where mkfs.ext4 is.
PATH=$PATH:/usr/sbin:/sbin

missing=
apt=
need() { # COMMAND DEBIAN-PACKAGE
    command -v "$1" >/dev/null 2>&1 && return 0
    missing="$missing $1"
    case " $apt " in *" $2 "*) ;; *) apt="$apt $2" ;; esac
}
need_file() { # FILE... DEBIAN-PACKAGE: one of the files
    for last; do :; done
    while [ $# -gt 1 ]; do
        [ -e "$1" ] && return 0
        shift
    done
    missing="$missing $last"
    apt="$apt $last"
}

for purpose; do
    need python3 python3
    case $purpose in
    riscv64)
        need riscv64-linux-gnu-gcc gcc-riscv64-linux-gnu
        need qemu-system-riscv64 qemu-system-misc
        need_file /usr/share/qemu/opensbi-riscv64-generic-fw_dynamic.bin \
            /usr/lib/riscv64-linux-gnu/opensbi/generic/fw_dynamic.bin opensbi
        need mkfs.ext4 e2fsprogs
        ;;
    aarch64)
        need aarch64-linux-gnu-gcc gcc-aarch64-linux-gnu
        need qemu-system-aarch64 qemu-system-arm
        need mkfs.ext4 e2fsprogs
        ;;
    test)
        need gcc gcc
        need_file /usr/include/string.h /usr/include/x86_64-linux-gnu/string.h libc6-dev
        need clang clang
        need_file /usr/lib/llvm-*/lib/clang/*/lib/linux/libclang_rt.fuzzer-*.a libclang-rt-14-dev
        need ld.lld lld
        need llvm-objcopy llvm
        need llvm-cov llvm
        need dtc device-tree-compiler
        need_file /usr/include/libfdt.h libfdt-dev
        need_file /usr/include/cmocka.h libcmocka-dev
        need_file /usr/lib/u-boot/qemu-riscv64_smode/uboot.elf u-boot-qemu
        need mkimage u-boot-tools
        need qemu-riscv64 qemu-user
        # Programs that run over the preloaded malloc.
        need perl perl
        need sqlite3 sqlite3
        need redis-server redis-server
        need redis-benchmark redis-tools
        ;;
    bench)
        need gcc gcc
        need_file /usr/include/string.h /usr/include/x86_64-linux-gnu/string.h libc6-dev
        need "qemu-$(uname -m)" qemu-user
        need gnuplot gnuplot-nox
        # The engines run on the targets' user-mode emulators, too.
        need_file /usr/riscv64-linux-gnu/include/stdio.h libc6-dev-riscv64-cross
        need_file /usr/aarch64-linux-gnu/include/stdio.h libc6-dev-arm64-cross
        # Peers, by the links that their -dev packages bring, so that no version is named here.
        need_file /usr/lib/*-linux-gnu/libjemalloc.so libjemalloc-dev
        need_file /usr/lib/*-linux-gnu/libmimalloc.so libmimalloc-dev
        # Programs that are recorded.
        need git git
        need perl perl
        need sqlite3 sqlite3
        need redis-server redis-server
        need redis-benchmark redis-tools
        ;;
    cost)
        need gcc gcc
        need valgrind valgrind
        ;;
    debug) need gdb-multiarch gdb-multiarch ;;
    format)
        need clang-format clang-format
        ;;
    *)
        echo "setup: what is '$purpose'?" >&2
        exit 2
        ;;
    esac
done

[ -n "$missing" ] || exit 0
echo "setup: missing:$missing"

if ! command -v apt-get >/dev/null 2>&1; then
    cat <<EOF
setup: this system has no apt; install these and try again:
  dnf:    gcc-riscv64-linux-gnu gcc-aarch64-linux-gnu qemu-system-riscv qemu-system-aarch64 edk2-riscv64 e2fsprogs python3 clang lld llvm dtc libfdt-devel libcmocka-devel uboot-images-riscv64
  pacman: riscv64-linux-gnu-gcc aarch64-linux-gnu-gcc qemu-system-riscv qemu-system-aarch64 e2fsprogs python clang lld llvm dtc cmocka
  brew:   riscv64-elf-gcc aarch64-elf-gcc qemu e2fsprogs python llvm dtc cmocka   (CROSS_COMPILE=riscv64-elf-)
EOF
    exit 1
fi
if [ "${SETUP:-yes}" = no ]; then
    echo "setup: SETUP=no, so nothing is installed; it would be: apt-get install$apt"
    exit 1
fi

as_root=
if [ "$(id -u)" != 0 ]; then
    command -v sudo >/dev/null 2>&1 || {
        echo "setup: not root and no sudo; run as root: apt-get install$apt" >&2
        exit 1
    }
    as_root=sudo
fi
echo "setup: apt-get install$apt"
$as_root apt-get update -qq
# shellcheck disable=SC2086
$as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $apt >/dev/null
