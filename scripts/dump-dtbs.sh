#!/bin/sh
# SPDX-License-Identifier: MIT
# Collect device trees to test the reader with: what QEMU makes for every machine
# that the boot tests use, and what is written in tests/dts.
# usage: dump-dtbs.sh DIR
set -eu

out=${1:?usage: dump-dtbs.sh DIR}
dts=$(dirname "$0")/../tests/dts
mkdir -p "$out"

# dump NAME QEMU MACHINE [ARGUMENT...]: the tree in DIR/NAME.dtb
dump() {
	name=$1 qemu=$2 machine=$3
	shift 3
	rm -f "$out/$name.dtb"
	timeout 20 "$qemu" -M "$machine,dumpdtb=$out/$name.dtb" -display none -serial none \
		-monitor none -net none "$@" > "$out/$name.log" 2>&1 || true
	if ! [ -s "$out/$name.dtb" ]; then
		echo "dump-dtbs: $name: $(tail -n 1 "$out/$name.log")" >&2
		exit 1
	fi
	rm -f "$out/$name.log"
}

rv=qemu-system-riscv64
a64=qemu-system-aarch64
disk="-drive if=none,id=d0,driver=null-co -device virtio-blk-device,drive=d0"

for mem in 64M 128M 512M 3G; do
	dump rv-$mem $rv virt -m $mem
	dump a64-$mem $a64 virt -cpu cortex-a57 -m $mem
done
# The tree does not need the memory to be there.
big="-object memory-backend-ram,id=mb,reserve=off"
dump rv-8G $rv virt,memory-backend=mb $big,size=8G -m 8G
dump rv-1T $rv virt,memory-backend=mb $big,size=1T -m 1T
dump a64-8G $a64 virt,memory-backend=mb -cpu cortex-a57 $big,size=8G -m 8G
# 1 TiB does not fit in the 40 physical bits of the smaller CPUs.
dump a64-1T $a64 virt,memory-backend=mb,highmem=on -cpu max $big,size=1T -m 1T
dump rv-smp4 $rv virt -smp 4
dump rv-u54 $rv virt -cpu sifive-u54
dump rv-svpbmt $rv virt -cpu rv64,svpbmt=true
dump rv-aia $rv virt,aia=aplic-imsic -smp 4
dump rv-disk $rv virt -global virtio-mmio.force-legacy=false $disk
dump rv-sifive_u $rv sifive_u -smp 5
numa="-m 512M -smp 2 -object memory-backend-ram,id=m0,size=256M -object memory-backend-ram,id=m1,size=256M
	-numa node,nodeid=0,cpus=0,memdev=m0 -numa node,nodeid=1,cpus=1,memdev=m1"
dump rv-numa $rv virt $numa
dump a64-numa $a64 virt -cpu cortex-a57 $numa
for cpu in cortex-a53 cortex-a72 max; do
	dump a64-$cpu $a64 virt -cpu $cpu -smp 4
done
dump a64-gic3 $a64 virt,gic-version=3 -cpu cortex-a57 -smp 4
dump a64-el2 $a64 virt,virtualization=on -cpu cortex-a57
dump a64-el3 $a64 virt,secure=on -cpu cortex-a57
dump a64-smmu $a64 virt,iommu=smmuv3,gic-version=3 -cpu cortex-a57
dump a64-disk $a64 virt -cpu cortex-a57 $disk
dump a64-versal $a64 xlnx-versal-virt -m 4G

dd if=/dev/zero of="$out/initrd" bs=4096 count=3 2> /dev/null
dd if=/dev/zero of="$out/kernel" bs=4096 count=3 2> /dev/null
dump rv-initrd $rv virt -kernel "$out/kernel" -initrd "$out/initrd" -append "test=mm/*"
dump a64-initrd $a64 virt -cpu cortex-a57 -kernel "$out/kernel" -initrd "$out/initrd" -append "test=mm/*"
rm -f "$out/initrd" "$out/kernel"

for f in "$dts"/*.dts; do
	dtc -q -I dts -O dtb -o "$out/dts-$(basename "$f" .dts).dtb" "$f"
done
echo "dump-dtbs: $(ls "$out"/*.dtb | wc -l) trees in $out"
