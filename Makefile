# SPDX-License-Identifier: MIT
# Mica's one Makefile. `make help` lists the targets and variables.

MAKEFLAGS += --no-builtin-rules
.SUFFIXES:
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

ARCH   ?= riscv64
ALLOC  ?= tlsf
HARDEN ?= 1
DEBUG  ?= 0
LLVM   ?= 0
TESTS  ?= 1
BENCH  ?= 0
SMP    ?= 1
MEM    ?= 512M
V      ?= 0

ARCHES  := riscv64 aarch64
ENGINES := tlsf slab buddy

one_of = $(if $(filter $(2),$($(1))),,$(error $(1)=$($(1)): pick one of: $(2)))
some_of = $(if $(filter-out $(2),$($(1))),$(error $(1)=$($(1)): pick from: $(2)))
$(call one_of,ARCH,$(ARCHES))
$(call one_of,ALLOC,$(ENGINES))
$(call one_of,HARDEN,0 1 2 3)
$(foreach v,DEBUG LLVM TESTS BENCH V,$(call one_of,$(v),0 1))
$(if $(PAGING),$(call one_of,PAGING,39 48))

Q := $(if $(filter 1,$(V)),,@)
say = $(if $(filter 1,$(V)),,@printf '  %-8s %s\n' '$(1)' '$(2)')

# --- Tools ------------------------------------------------------------------

include arch/$(ARCH)/arch.mk

CROSS_COMPILE ?= $(ARCH_CROSS)
ifeq ($(LLVM),1)
KCC      := clang --target=$(ARCH_TRIPLE)
KLD      := ld.lld
KOBJCOPY := llvm-objcopy
KNM      := llvm-nm
KAR      := llvm-ar
else
KCC      := $(CROSS_COMPILE)gcc
KLD      := $(CROSS_COMPILE)ld
KOBJCOPY := $(CROSS_COMPILE)objcopy
KNM      := $(CROSS_COMPILE)nm
KAR      := $(CROSS_COMPILE)ar
endif

HOSTCC  ?= gcc
HOSTAR  ?= ar
PYTHON  ?= python3

# Images that differ in their engine or their parts share objects: in O what is the same in all of them.
VARIANT := $(if $(filter 1,$(LLVM)),-llvm)$(if $(filter 1,$(DEBUG)),-debug)$(if $(filter-out 1,$(HARDEN)),-h$(HARDEN))
O := build/objects/$(ARCH)$(VARIANT)
B := build/$(ARCH)-$(ALLOC)$(VARIANT)$(if $(filter 0,$(TESTS)),-notests)$(if $(filter 1,$(BENCH)),-bench)$(if $(PAGING),-sv$(PAGING))

# --- Flags ------------------------------------------------------------------

WARN := -std=gnu11 -Wall -Wextra -Wshadow -Wconversion -Wstrict-prototypes -Wmissing-prototypes \
	-Wundef -Wvla -Werror
OPT  := $(if $(filter 1,$(DEBUG)),-Og,-O2) -g
# Where gcc at -O2 makes one unit with an inline port, calls at the end of functions are jumps (mm/port.h).
JUMPS := $(if $(filter 1,$(DEBUG)),,-DMM_PASS_CALLER=0)

# What mm/ and dma/ are configured with (mm/port.h).
MM_DEFS := -DMM_HARDEN=$(HARDEN) -DMM_DEBUG=$(DEBUG)

KFLAGS := $(WARN) $(OPT) $(if $(filter 1,$(LLVM)),,$(JUMPS)) $(ARCH_CFLAGS) -ffreestanding -fno-common -fno-pic -fno-stack-protector \
	  -fno-strict-aliasing -fno-asynchronous-unwind-tables -fno-unwind-tables \
	  -ffunction-sections -fdata-sections -fno-tree-loop-distribute-patterns \
	  $(MM_DEFS) -DMM_MAX_CPUS=16 -DMM_FAST_BITS=$(ARCH_FAST_BITS) -DMM_PORT_INLINE='"mm_port_kernel.h"'
ifeq ($(LLVM),1)
KFLAGS := $(filter-out -fno-tree-loop-distribute-patterns,$(KFLAGS)) -fno-builtin-memset -fno-builtin-memcpy
endif
FRAME := -fno-omit-frame-pointer

# What each module may include (docs/architecture.md): the include path enforces it.
INC_lib     := -Ikernel/lib/include
INC_arch    := $(INC_lib) -Iarch/include -Iarch/$(ARCH)/include
INC_mm      := -Imm/include
INC_dma     := $(INC_mm) -Idma/include
INC_port    := -Ikernel/port $(INC_arch) -Ikernel/include
INC_drivers := $(INC_arch) $(INC_dma) -Ikernel/include -Idrivers/include
INC_kernel  := $(INC_drivers)
INC_test    := -Iinclude

# --- Kernel sources ---------------------------------------------------------

SRC_lib     := $(wildcard kernel/lib/*.c)
SRC_arch    := $(wildcard arch/$(ARCH)/*.c arch/$(ARCH)/*.S)
SRC_mm      := $(wildcard mm/*.c)
SRC_dma     := $(wildcard dma/*.c)
SRC_drivers := $(filter-out $(ARCH_NO_DRIVERS),$(wildcard drivers/*/*.c))
SRC_kernel  := $(wildcard kernel/*.c)
ifeq ($(TESTS),1)
TSRC_lib     := $(wildcard kernel/lib/test/*.c)
TSRC_arch    := $(wildcard arch/test/*.c)
TSRC_mm      := $(wildcard mm/test/*.c)
TSRC_dma     := $(wildcard dma/test/*.c)
TSRC_drivers := $(wildcard drivers/*/test/*.c)
TSRC_kernel  := $(wildcard kernel/test/*.c)
endif
# Benchmarks run as self-tests do (make bench-guest).
ifeq ($(BENCH),1)
SRC_bench    := $(wildcard bench/guest/*.c)
endif

MODULES := lib arch mm dma drivers kernel bench

# What each image compiles for itself, and with what.
IMAGE_SRCS  := $(wildcard mm/global*.c) $(ARCH_IMAGE_SRCS)
IMAGE_FLAGS := -DMM_GLOBAL_ENGINE=byte_$(ALLOC)_ops $(ARCH_IMAGE_FLAGS)

objs_of = $(foreach s,$(1),$(if $(filter $(s),$(IMAGE_SRCS)),$(B),$(O))/$(basename $(s)).o)
objs = $(call objs_of,$(SRC_$(1)) $(TSRC_$(1)))
KOBJS := $(foreach m,$(MODULES),$(call objs,$(m)))

# How gcc makes one unit of all that it links.
GCC_UNIT := -flto=1 -flto-partition=one

# gcc optimises mm/ as one unit, so that the engine becomes a part of global_alloc and global_dealloc.
LINK_OBJS := $(KOBJS)
ifneq ($(LLVM),1)
MM_OBJS   := $(call objs_of,$(SRC_mm))
MM_UNIT   := $(B)/mm/unit.o
MM_LTO    := $(GCC_UNIT)
LINK_OBJS := $(filter-out $(MM_OBJS),$(KOBJS)) $(MM_UNIT)
endif

# mm/ and dma/ see the port through one header; the frame pointer is left out of their hot paths.
MODFLAGS_lib     := $(INC_lib) $(FRAME)
MODFLAGS_arch    := $(INC_arch) $(INC_mm) -Ikernel/include $(FRAME)
MODFLAGS_mm      := $(INC_mm) $(INC_port) $(if $(filter 1,$(DEBUG)),$(FRAME))
MODFLAGS_dma     := $(INC_dma) $(INC_port) $(if $(filter 1,$(DEBUG)),$(FRAME))
MODFLAGS_drivers := $(INC_drivers) $(INC_port) $(INC_test) $(FRAME)
MODFLAGS_kernel  := $(INC_kernel) $(INC_port) $(INC_test) $(FRAME)
MODFLAGS_bench   := $(INC_kernel) $(INC_port) $(INC_test) -DBENCH_ARCH='"$(ARCH)"'

define module_rules
$(call objs,$(1)): MODFLAGS := $(MODFLAGS_$(1))
endef
$(foreach m,$(MODULES),$(eval $(call module_rules,$(m))))
$(foreach m,$(MODULES),$(eval $(call objs_of,$(TSRC_$(m))): MODFLAGS += $(INC_test)))

$(MM_OBJS): MODFLAGS += $(MM_LTO)

$(MM_UNIT): $(MM_OBJS) $(B)/objects
	$(call say,LTO,$@)
	$(Q)$(KCC) $(KFLAGS) $(MM_LTO) -flinker-output=nolto-rel -r -nostdlib -o $@ $(MM_OBJS)

# A file that holds a compiler and its flags, written when they change, and only then: what depends on
# it is built anew. One with the names of what is linked does so where a source is gone.
define keep_flags
@mkdir -p $(@D)
@printf '%s\n' '$(subst ','\'',$(1))' | cmp -s - $@ || printf '%s\n' '$(subst ','\'',$(1))' > $@
endef

define compile_rules
$(1)/%.o: %.c $(1)/flags
	$$(call say,CC,$$<)
	@mkdir -p $$(@D)
	$$(Q)$$(KCC) $$(KFLAGS) $(2) $$(MODFLAGS) -MMD -MP -c -o $$@ $$<

$(1)/%.o: %.S $(1)/flags
	$$(call say,AS,$$<)
	@mkdir -p $$(@D)
	$$(Q)$$(KCC) $$(KFLAGS) $(2) $$(MODFLAGS) -MMD -MP -c -o $$@ $$<

$(1)/flags: FORCE
	$$(call keep_flags,$$(KCC) $$(KFLAGS) $(2) $$(MM_LTO))
endef
$(eval $(call compile_rules,$(O)))
$(eval $(call compile_rules,$(B),$(IMAGE_FLAGS)))

# --- Link -------------------------------------------------------------------

$(B)/kernel.lds: linker/kernel.lds.S linker/$(ARCH).h $(B)/flags
	@mkdir -p $(@D)
	$(Q)$(KCC) -E -P -x assembler-with-cpp -Ilinker -include linker/$(ARCH).h -o $@ $<

LINK = $(KLD) $(ARCH_LDFLAGS) -nostdlib -static --gc-sections --no-warn-rwx-segments \
	-z max-page-size=4096 --build-id=none --orphan-handling=error -T $(B)/kernel.lds
ifeq ($(LLVM),1)
LINK := $(subst --no-warn-rwx-segments,,$(LINK))
endif

# The symbol table for backtraces: made from a first link, whose text does not move in the second.
$(B)/mica.elf: $(LINK_OBJS) $(B)/objects $(B)/kernel.lds scripts/ksyms.py
	$(call say,LD,$@)
	$(Q)$(PYTHON) scripts/ksyms.py < /dev/null > $(B)/ksyms0.S
	$(Q)$(KCC) $(ARCH_CFLAGS) -c -o $(B)/ksyms0.o $(B)/ksyms0.S
	$(Q)$(LINK) -o $(B)/mica0.elf $(LINK_OBJS) $(B)/ksyms0.o
	$(Q)$(KNM) -n $(B)/mica0.elf | $(PYTHON) scripts/ksyms.py > $(B)/ksyms.S
	$(Q)$(KCC) $(ARCH_CFLAGS) -c -o $(B)/ksyms.o $(B)/ksyms.S
	$(Q)$(LINK) -o $@ $(LINK_OBJS) $(B)/ksyms.o

$(B)/mica.bin: $(B)/mica.elf
	$(Q)$(KOBJCOPY) -O binary $< $@

$(B)/objects: FORCE
	$(call keep_flags,$(LINK) $(KOBJS))

kernel: $(B)/mica.bin

-include $(KOBJS:.o=.d)

# --- Host tests -------------------------------------------------------------

# One binary per sanitizer set, made of the same sources that the kernel is made of.
HOST_SAN  ?= address,undefined
HOST_FAST_BITS ?= 0
comma     := ,
HB        := build/host-$(subst $(comma),-,$(HOST_SAN))-h$(HARDEN)
HOST_SRCS := $(SRC_mm) $(wildcard mm/test/*.c) $(SRC_dma) $(wildcard dma/test/*.c) \
	     $(filter-out kernel/lib/string.c,$(SRC_lib)) $(wildcard kernel/lib/test/*.c) \
	     $(wildcard kernel/fdt.c kernel/memmap.c kernel/test/test_fdt.c kernel/test/test_memmap.c) \
	     $(addprefix drivers/virtio/,virtio.c virtqueue.c virtio_blk.c blk.c) \
	     $(filter-out %_real.c,$(wildcard drivers/virtio/test/*.c)) \
	     $(wildcard tests/host/*.c)
HOST_OBJS := $(patsubst %.c,$(HB)/%.o,$(HOST_SRCS))
HOST_FLAGS = $(WARN) -O1 -g -fno-omit-frame-pointer $(if $(filter none,$(HOST_SAN)),,-fsanitize=$(HOST_SAN) -fno-sanitize-recover=all) \
	     $(if $(findstring thread,$(HOST_SAN)),-Wno-tsan) \
	     $(MM_DEFS) -DMM_FAST_BITS=$(HOST_FAST_BITS) -DMM_GLOBAL_ENGINE=byte_$(ALLOC)_ops \
	     $(INC_lib) $(INC_dma) -Ikernel/include -Idrivers/include $(INC_test) -Itests/host \
	     -Iarch/include -Itests/host/include

$(HB)/%.o: %.c $(HB)/flags
	$(call say,HOSTCC,$<)
	@mkdir -p $(@D)
	$(Q)$(HOSTCC) $(HOST_FLAGS) -MMD -MP -c -o $@ $<

$(HB)/flags: FORCE
	$(call keep_flags,$(HOSTCC) $(HOST_FLAGS))

$(HB)/objects: FORCE
	$(call keep_flags,$(HOST_OBJS) $(INJECT_OBJS) $(INJECT_WRAP))

$(HB)/selftest: $(HOST_OBJS) $(HB)/objects
	$(call say,HOSTLD,$@)
	$(Q)$(HOSTCC) $(HOST_FLAGS) -o $@ $(HOST_OBJS) -lcmocka -lfdt -lpthread

host-test: $(HB)/selftest
	$(Q)$(HB)/selftest $(if $(FILTER),"$(FILTER)")

# The same tests with every allocation failing once (tests/inject): what memory comes from is
# wrapped by the linker, as the sources say.
INJECT_SRCS := $(wildcard tests/inject/*.c)
INJECT_OBJS := $(INJECT_SRCS:%.c=$(HB)/%.o)
INJECT_WRAP := $(shell sed -n 's/^WRAPPED(\(.*\));/\1/p' $(INJECT_SRCS)) $(ENGINES:%=byte_%_ops)

$(HB)/injection: $(INJECT_OBJS) $(filter-out %/host/runner.o,$(HOST_OBJS)) $(HB)/objects
	$(call say,HOSTLD,$@)
	$(Q)$(HOSTCC) $(HOST_FLAGS) $(INJECT_WRAP:%=-Wl$(comma)--wrap=%) -o $@ $(filter %.o,$^) -lfdt -lpthread

inject-test: $(HB)/injection
	$(Q)$(HB)/injection $(if $(FILTER),"$(FILTER)")

.PHONY: inject-test

-include $(INJECT_OBJS:.o=.d)

# Each misuse on each engine at each level, against what docs/memory.md says.
misuse-test:
	$(Q)HOSTCC='$(HOSTCC)' scripts/misuse-table.sh --check

.PHONY: misuse-test

# Instructions of each hardening level, into docs/memory.md.
harden-cost:
	$(Q)scripts/setup.sh cost
	$(Q)scripts/harden-cost.sh --write

.PHONY: harden-cost

# Lines and branches of mm/ that the tests take, merged over builds that differ.
coverage:
	$(Q)scripts/setup.sh test
	$(Q)$(PYTHON) scripts/coverage.py build/coverage

.PHONY: coverage

# The device tree reader against libfdt, over every tree of the boot tests and mutated ones.
FDT_MUTATIONS ?= 200000

fdt-test: $(HB)/selftest
	$(Q)scripts/dump-dtbs.sh build/dtb
	$(Q)FDT_TREES=build/dtb FDT_MUTATIONS=$(FDT_MUTATIONS) $(HB)/selftest 'fdt/*'

-include $(HOST_OBJS:.o=.d)

# --- Fuzzers ----------------------------------------------------------------

FUZZ_SECONDS ?= 10
$(if $(shell echo '$(FUZZ_SECONDS)' | grep -x '[1-9][0-9]*'),,$(error FUZZ_SECONDS=$(FUZZ_SECONDS): a whole number from 1))
FUZZ_DIR     ?= build/fuzz
FUZZ_FLAGS    = -std=gnu11 -g -O1 -fsanitize=fuzzer-no-link$(comma)address$(comma)undefined -fno-sanitize-recover=all \
		$(MM_DEFS) -DMM_GLOBAL_ENGINE=byte_$(ALLOC)_ops -Imm/include -Imm
FUZZ_TARGETS := $(ENGINES) pages global
FUZZ_OBJS    := $(patsubst %.c,$(FUZZ_DIR)/%.o,$(SRC_mm) mm/test/shadow.c tests/host/mm_port_host.c)
FUZZ_MAINS   := $(FUZZ_TARGETS:%=$(FUZZ_DIR)/fuzz_%.o)

$(FUZZ_OBJS): $(FUZZ_DIR)/%.o: %.c $(FUZZ_DIR)/flags
$(FUZZ_DIR)/fuzz_pages.o $(FUZZ_DIR)/fuzz_global.o: $(FUZZ_DIR)/%.o: scripts/fuzz/%.c $(FUZZ_DIR)/flags
$(ENGINES:%=$(FUZZ_DIR)/fuzz_%.o): $(FUZZ_DIR)/fuzz_%.o: scripts/fuzz/fuzz_engine.c $(FUZZ_DIR)/flags
$(FUZZ_OBJS) $(FUZZ_MAINS):
	$(call say,FUZZCC,$<)
	@mkdir -p $(@D)
	$(Q)clang $(FUZZ_FLAGS) -DFUZZ_ENGINE=byte_$(@F:fuzz_%.o=%)_ops -MMD -MP -c -o $@ $<

$(FUZZ_TARGETS:%=$(FUZZ_DIR)/%): $(FUZZ_DIR)/%: $(FUZZ_DIR)/fuzz_%.o $(FUZZ_OBJS) $(FUZZ_DIR)/objects
	$(call say,FUZZER,$@)
	@mkdir -p $(@D)/corpus-$*
	$(Q)clang -fsanitize=fuzzer$(comma)address$(comma)undefined -o $@ $(filter %.o,$^) -lpthread

$(FUZZ_DIR)/objects: FORCE
	$(call keep_flags,$(FUZZ_OBJS))

$(FUZZ_DIR)/flags: FORCE
	$(call keep_flags,$(FUZZ_FLAGS))

-include $(FUZZ_OBJS:.o=.d) $(FUZZ_MAINS:.o=.d)

# A time limit per target; a finding ends the run and leaves its input in FUZZ_DIR.
fuzz-mm: $(FUZZ_TARGETS:%=$(FUZZ_DIR)/%)
	$(Q)for t in $(FUZZ_TARGETS); do \
		echo "fuzz $$t"; \
		$(FUZZ_DIR)/$$t -max_total_time=$(FUZZ_SECONDS) -max_len=1024 -verbosity=0 \
			-artifact_prefix=$(FUZZ_DIR)/$$t- $(FUZZ_DIR)/corpus-$$t || exit 1; \
	done

.PHONY: fuzz-mm

# --- Worst case ---------------------------------------------------------------

# Instructions of the worst operations of TLSF and of the facade, counted one by one, against their
# bounds.
WORST_NEEDS := tests/worst/count.c tests/worst/count.h tests/host/mm_port_host.c $(SRC_mm) \
	       $(wildcard mm/*.h mm/include/mm/*.h) build/worst/flags
WORST_FLAGS := $(WARN) -O2 -DMM_FAST_BITS=1 -DMM_GLOBAL_ENGINE=byte_tlsf_ops -Imm/include -Itests/host

ifeq ($(filter x86_64%,$(shell $(HOSTCC) -dumpmachine)),)
worst-test:
	@echo "worst-test: only x86-64 traps after each instruction of a program: skipped"
else
worst-test: worst-test-0 worst-test-1
endif

worst-test-0 worst-test-1: worst-test-%: build/worst/tlsf-% build/worst/global-%
	$(Q)build/worst/tlsf-$*
	$(Q)build/worst/global-$*

define worst_program
	$(call say,HOSTCC,$@)
	@mkdir -p $(@D)
	$(Q)$(HOSTCC) $(WORST_FLAGS) -DMM_HARDEN=$* -o $@ $(filter %.c,$^) -lpthread
endef

build/worst/flags: FORCE
	$(call keep_flags,$(HOSTCC) $(WORST_FLAGS) $(SRC_mm))

build/worst/tlsf-%: tests/worst/tlsf_worst.c $(WORST_NEEDS)
	$(worst_program)

build/worst/global-%: tests/worst/global_worst.c $(WORST_NEEDS)
	$(worst_program)

.PHONY: worst-test worst-test-0 worst-test-1

# --- Benchmarks (docs/benchmarks.md) ------------------------------------------

# Engines alone and the facade, as shared objects for the replayer, optimised as one unit. BENCH_ARCH: for
# this machine, or for a target's user-mode emulator.
BENCH_DIR   ?= build/bench
BENCH_ARCH  ?= host
BENCH_CC     = $(LIB_CC_$(BENCH_ARCH))
# As mm/ is in the kernel; the compiler $(1) may be clang, where there is but one way.
one_unit     = $(if $(findstring clang,$(1)),-flto,$(GCC_UNIT))
BENCH_FLAGS  = $(WARN) -O2 -fno-tree-slp-vectorize -g -fPIC $(call one_unit,$(BENCH_CC)) -fvisibility=hidden $(INC_mm) -Imm -DMM_HARDEN=$(HARDEN) \
	       $(filter -DMM_FAST_BITS=% -mgeneral-regs-only -mstrict-align -mno-outline-atomics,$(LIB_FLAGS_$(BENCH_ARCH))) \
	       -DMM_MAX_CPUS=1 -DMM_PORT_INLINE='"../../../bench/plugins/port_bench.h"'
BENCH_PLUGINS := $(ENGINES:%=$(BENCH_DIR)/mica-%.so) $(ENGINES:%=$(BENCH_DIR)/mica-global-%.so) \
		 $(BENCH_DIR)/mica-pages.so $(BENCH_DIR)/mica-global.so
BENCH_NEEDS   := $(wildcard mm/*.h mm/include/mm/*.h) bench/plugins/port_bench.h $(BENCH_DIR)/flags

$(BENCH_DIR)/flags: FORCE
	$(call keep_flags,$(BENCH_CC) $(BENCH_FLAGS) $(SRC_mm))

$(ENGINES:%=$(BENCH_DIR)/mica-%.so): $(BENCH_DIR)/mica-%.so: bench/plugins/heap_engine.c mm/byte_%.c mm/bits.c mm/fault.c bench/host/plugin.h $(BENCH_NEEDS)
	$(call say,PLUGIN,$@)
	$(Q)$(BENCH_CC) $(BENCH_FLAGS) -DENGINE=$* -shared -o $@ $(filter %.c,$^)

# These engines are more than one file.
$(BENCH_DIR)/mica-slab.so: mm/byte_slab_span.c mm/byte_slab_check.c
$(BENCH_DIR)/mica-tlsf.so: mm/byte_tlsf_check.c
$(BENCH_DIR)/mica-buddy.so: mm/byte_buddy_nodes.c mm/byte_buddy_check.c

$(BENCH_DIR)/mica-pages.so: bench/plugins/pages.c mm/page_bitmap.c mm/page_region.c mm/page_run.c mm/bits.c mm/fault.c bench/host/pageplugin.h $(BENCH_NEEDS)
	$(call say,PLUGIN,$@)
	$(Q)$(BENCH_CC) $(BENCH_FLAGS) -shared -o $@ $(filter %.c,$^)

$(BENCH_DIR)/mica-global-%.so: bench/plugins/heap_global.c $(SRC_mm) bench/host/plugin.h $(BENCH_NEEDS)
	$(call say,PLUGIN,$@)
	$(Q)$(BENCH_CC) $(BENCH_FLAGS) -DMM_GLOBAL_ENGINE=byte_$*_ops -shared -o $@ $(filter %.c,$^)

$(BENCH_DIR)/mica-global.so: $(BENCH_DIR)/mica-global-$(ALLOC).so FORCE
	@cmp -s $< $@ || cp $< $@

bench-plugins: $(BENCH_PLUGINS)

# What runs where the plugins run. Programs: $(1) the architecture, $(2) the compiler.
BENCH_TOOL    = $(WARN) -O2 -g
BENCH_SO      = $(BENCH_TOOL) -fPIC -fvisibility=hidden -shared
BENCH_HEADERS := $(wildcard bench/host/*.h)
define bench_programs
build/bench/$(1)/replay: bench/host/replay.c bench/host/replay_count.c bench/host/replay_memory.c bench/host/replay_verify.c bench/host/trace_read.c
build/bench/$(1)/pagebench: bench/host/pagebench.c
build/bench/$(1)/replay build/bench/$(1)/pagebench: $(BENCH_HEADERS) build/bench/$(1)/flags
	@mkdir -p $$(@D)
	$$(Q)$(2) $$(BENCH_TOOL) -o $$@ $$(filter %.c,$$^) -ldl

build/bench/$(1)/libc.so: bench/plugins/libc.c $(BENCH_HEADERS) build/bench/$(1)/flags
	@mkdir -p $$(@D)
	$$(Q)$(2) $$(BENCH_SO) -fno-plt -o $$@ $$<

build/bench/$(1)/flags: FORCE
	$$(call keep_flags,$(2) $$(BENCH_SO))

bench-programs-$(1): $(addprefix build/bench/$(1)/,replay pagebench libc.so)
endef
$(eval $(call bench_programs,host,$$(LIB_CC_host)))
$(foreach a,$(ARCHES),$(eval $(call bench_programs,$(a),$$(LIB_CC_$(a)))))

# What runs on this machine only. QEMU 9 refuses plugins of the interface that it had before.
BENCH_TOOLS := $(addprefix build/bench/host/,record.so tracetool libcount.so)
QEMU_MAJOR   = $(shell qemu-$$(uname -m) --version | sed -n 's/.* version \([0-9]*\).*/\1/p')

build/bench/host/record.so: bench/host/record.c bench/host/trace_write.c $(BENCH_HEADERS) build/bench/host/flags
	@mkdir -p $(@D)
	$(Q)$(HOSTCC) $(BENCH_SO) -Wl,-z,initfirst -o $@ $(filter %.c,$^) -ldl -lpthread

build/bench/host/tracetool: bench/host/tracetool.c bench/host/trace_read.c bench/host/trace_write.c $(BENCH_HEADERS) build/bench/host/flags
	@mkdir -p $(@D)
	$(Q)$(HOSTCC) $(BENCH_TOOL) -o $@ $(filter %.c,$^)

build/bench/host/libcount.so: bench/host/qemu_count.c $(BENCH_HEADERS) build/bench/host/flags
	@mkdir -p $(@D)
	$(Q)$(HOSTCC) $(BENCH_SO) -DPLUGIN_API=$(if $(filter 4 5 6 7 8,$(QEMU_MAJOR)),1,2) -o $@ $<

bench-tools: $(BENCH_TOOLS) bench-programs-host

# Every architecture at both levels; QUICK=1 leaves level 0 out on the targets.
BENCH_SETS := host-0 host-1 $(foreach a,$(ARCHES),$(if $(filter 1,$(QUICK)),,$(a)-0) $(a)-1)

bench-build: bench-tools $(ARCHES:%=bench-programs-%) $(BENCH_SETS:%=bench-set-%)

bench-set-%:
	$(Q)$(MAKE) --no-print-directory bench-plugins BENCH_ARCH=$(word 1,$(subst -, ,$*)) \
		HARDEN=$(word 2,$(subst -, ,$*)) BENCH_DIR=build/bench/$(subst -,/h,$*)

# QUICK=1: less of each trace. TRACES='a.trace ...': these instead of the default set.
bench:
	$(Q)scripts/setup.sh riscv64 aarch64 bench
	$(if $(TRACES),$(Q)$(MAKE) --no-print-directory build/bench/host/tracetool && $(PYTHON) scripts/bench.py --check $(TRACES))
	$(Q)$(MAKE) --no-print-directory -j$$(nproc) bench-build
	$(Q)$(PYTHON) scripts/bench.py $(if $(filter 1,$(QUICK)),--quick) $(TRACES)

# The figures of docs/benchmarks.md, from the last run.
bench-docs:
	$(Q)$(PYTHON) scripts/bench_report.py build/bench docs/benchmarks.md

# PROG='command ...' [NAME=name]: record a program of your own; `make bench` replays it from then on.
bench-record: bench-tools
	$(if $(PROG),,$(error PROG='command ...': what is to be recorded?))
	$(Q)$(PYTHON) scripts/bench_record.py build/bench --program '$(subst ','\'',$(value PROG))' '$(subst ','\'',$(value NAME))'

bench-test: bench-tools
	$(Q)scripts/bench-test.sh

.PHONY: bench bench-docs bench-build bench-tools bench-record bench-test

# --- Benchmarks on the targets ----------------------------------------------

# A kernel for each, on an emulator that retires one instruction a tick: a line per figure.
GUEST_ARCHES  ?= $(ARCHES)
GUEST_ENGINES ?= $(ENGINES)
GUEST_HARDEN  ?= 0 1
GUEST_RESULTS ?= $(BENCH_DIR)/guest.txt
GUEST_RUNS    := $(foreach a,$(GUEST_ARCHES),$(foreach e,$(GUEST_ENGINES),$(foreach h,$(GUEST_HARDEN),$(a)-$(e)-$(h))))

bench-guest: $(GUEST_RUNS:%=$(BENCH_DIR)/guest-%.txt)
	$(Q)cat $^ > $(GUEST_RESULTS)
	@cat $(GUEST_RESULTS)

guest_run = $(MAKE) --no-print-directory ARCH=$(word 1,$1) ALLOC=$(word 2,$1) HARDEN=$(word 3,$1) BENCH=1 TESTS=0 DEBUG=0

$(BENCH_DIR)/guest-%.txt: FORCE
	@mkdir -p $(@D)
	+$(Q)flock $(BENCH_DIR)/guest.lock $(call guest_run,$(subst -, ,$*)) kernel
	+$(Q)$(call guest_run,$(subst -, ,$*)) run QEMU_ARGS='--disks 0 -- -icount shift=0,sleep=off' < /dev/null > $@.log || \
		{ cat $@.log; exit 1; }
	$(Q)sed -n 's/^bench /&/p' $@.log > $@

# --- Library ----------------------------------------------------------------

# mm/ as an archive, for the host and every architecture (docs/embedding.md). PORT=file.h compiles that
# port in; without it the port is functions that the archive's user links.
PORT          ?=
MAX_CPUS      ?= 8
LIB_ARCHES    := host $(ARCHES)
$(call some_of,LIB_ARCHES,host $(ARCHES))
$(if $(filter $(shell seq 64),$(MAX_CPUS)),,$(error MAX_CPUS=$(MAX_CPUS): from 1 to 64))
LIB_DIR       := build/lib
LIB_VARIANT   := $(ALLOC)-h$(HARDEN)-c$(MAX_CPUS)$(if $(filter 1,$(DEBUG)),-debug)$(if $(PORT),-port)
LIB_PORT      := $(if $(PORT),-DMM_PORT_INLINE='"$(abspath $(PORT))"')
LIB_CC_host    := $(HOSTCC)
LIB_AR_host    := $(HOSTAR)
LIB_FLAGS_host := -DMM_FAST_BITS=1
define lib_arch
include arch/$(1)/arch.mk
LIB_CC_$(1)    := $$(if $$(filter 1,$$(LLVM)),clang --target=$$(ARCH_TRIPLE),$(2)gcc)
LIB_AR_$(1)    := $$(if $$(filter 1,$$(LLVM)),llvm-ar,$(2)ar)
LIB_FLAGS_$(1) := $$(ARCH_CFLAGS) -DMM_FAST_BITS=$$(ARCH_FAST_BITS)
endef
$(foreach a,$(ARCHES),$(eval $(call lib_arch,$(a),$(if $(filter $(a),$(ARCH)),$$(CROSS_COMPILE),$$(ARCH_CROSS)))))
include arch/$(ARCH)/arch.mk

# One rule set per architecture: the archive of one variant, copied to where users look for it. Where gcc
# compiles it, the archive has one member, optimised as one unit.
LIB_UNIT := $(if $(findstring clang,$(if $(filter 1,$(LLVM)),clang,$(HOSTCC))),,unit)
define lib_rules
LIB_OBJS_$(1) := $$(SRC_mm:%.c=$(LIB_DIR)/$(1)/$(LIB_VARIANT)/%.o)
LIB_BUILD_$(1) = $$(LIB_CC_$(1)) $$(WARN) $$(OPT) $$(if $$(and $$(LIB_UNIT),$$(PORT)),$$(JUMPS)) -ffreestanding -fvisibility=hidden -ffunction-sections -fdata-sections \
	$$(LIB_FLAGS_$(1)) $$(MM_DEFS) -DMM_MAX_CPUS=$$(MAX_CPUS) $$(LIB_PORT) -DMM_GLOBAL_ENGINE=byte_$(ALLOC)_ops $$(INC_mm)

$(LIB_DIR)/$(1)/$(LIB_VARIANT)/%.o: %.c $(LIB_DIR)/$(1)/$(LIB_VARIANT)/flags
	$$(call say,LIBCC,$$<)
	@mkdir -p $$(@D)
	$$(Q)$$(LIB_BUILD_$(1)) $$(if $$(LIB_UNIT),$$(MM_LTO)) -MMD -MP -c -o $$@ $$<

$(LIB_DIR)/$(1)/$(LIB_VARIANT)/unit.o: $$(LIB_OBJS_$(1)) $(LIB_DIR)/$(1)/$(LIB_VARIANT)/objects
	$$(call say,LTO,$$@)
	$$(Q)$$(LIB_BUILD_$(1)) $$(MM_LTO) -flinker-output=nolto-rel -r -nostdlib -o $$@ $$(LIB_OBJS_$(1))

$(LIB_DIR)/$(1)/$(LIB_VARIANT)/flags: FORCE
	$$(call keep_flags,$$(LIB_BUILD_$(1)))

$(LIB_DIR)/$(1)/$(LIB_VARIANT)/objects: FORCE
	$$(call keep_flags,$$(LIB_AR_$(1)) $$(LIB_OBJS_$(1)))

$(LIB_DIR)/$(1)/$(LIB_VARIANT)/libmica-mm.a: $$(if $$(LIB_UNIT),$(LIB_DIR)/$(1)/$(LIB_VARIANT)/unit.o,$$(LIB_OBJS_$(1))) $(LIB_DIR)/$(1)/$(LIB_VARIANT)/objects
	$$(call say,AR,$$@)
	$$(Q)rm -f $$@
	$$(Q)$$(LIB_AR_$(1)) rcs $$@ $$(filter %.o,$$^)

$(LIB_DIR)/$(1)/libmica-mm.a: $(LIB_DIR)/$(1)/$(LIB_VARIANT)/libmica-mm.a FORCE
	@cmp -s $$< $$@ || cp $$< $$@

-include $$(LIB_OBJS_$(1):.o=.d)
endef
$(foreach a,$(LIB_ARCHES),$(eval $(call lib_rules,$(a))))

lib: $(LIB_ARCHES:%=$(LIB_DIR)/%/libmica-mm.a)

# The example, linked with the library alone, and on the targets with a kernel's memset and memcpy;
# once with its port compiled in, once with the port as functions.
# The same with a program that misuses memory, to see whom the library names as the caller.
EMBED_PORT  := $(if $(PORT),,tests/embed/port_calls.c)
EMBED_NAMES := $(foreach p,embed caller,$(p)$(if $(PORT),,-calls))
EMBED_FLAGS := $(LIB_DIR)/flags$(if $(PORT),,-calls)

$(EMBED_FLAGS): FORCE
	$(call keep_flags,$(LIB_VARIANT) $(LIB_PORT))

define embed_rules
$(LIB_DIR)/host/$(1): tests/embed/$(2).c $(EMBED_PORT) tests/embed/console_host.c $(LIB_DIR)/host/$(LIB_VARIANT)/libmica-mm.a $(EMBED_FLAGS)
	$$(Q)$$(LIB_BUILD_host) -fno-builtin-fputs -o $$@ $$(filter-out $(EMBED_FLAGS),$$^)

$(LIB_DIR)/%/$(1): tests/embed/$(2).c $(EMBED_PORT) tests/embed/console_%.S kernel/lib/string.c $(LIB_DIR)/%/$(LIB_VARIANT)/libmica-mm.a $(EMBED_FLAGS)
	$$(Q)$$(LIB_BUILD_$$*) $$(INC_lib) -fno-tree-loop-distribute-patterns -static -nostdlib -o $$@ $$(filter-out $(EMBED_FLAGS),$$^)
endef
$(foreach n,$(EMBED_NAMES),$(eval $(call embed_rules,$(n),$(n:%-calls=%))))

embed-programs: $(foreach a,$(LIB_ARCHES),$(EMBED_NAMES:%=$(LIB_DIR)/$(a)/%))

embed-test:
	$(Q)$(MAKE) --no-print-directory embed-programs PORT=
	$(Q)$(MAKE) --no-print-directory embed-programs PORT=tests/embed/port.h
	$(Q)scripts/embed-test.sh '$(word 2,$(subst :, ,$(filter $(ALLOC):%,tlsf:TLSF slab:slab buddy:buddy)))' \
		$(foreach a,$(LIB_ARCHES),$(foreach p,embed caller,$(LIB_DIR)/$(a)/$(p) $(LIB_DIR)/$(a)/$(p)-calls))

# --- malloc for Linux processes ---------------------------------------------

PRELOAD_DIR   := build/preload
PRELOAD_FLAGS = $(WARN) -O2 $(JUMPS) -g -fPIC $(call one_unit,$(HOSTCC)) -fvisibility=hidden -fno-builtin-malloc -fno-builtin-calloc \
		-Wl,-z,initfirst $(INC_mm) $(MM_DEFS) -DMM_FAST_BITS=1 -DMM_MAX_CPUS=16 -DMM_PORT_INLINE='"../../../tests/preload/port_preload.h"'
PRELOAD_ENGINES ?= $(ENGINES)
$(call some_of,PRELOAD_ENGINES,$(ENGINES))
PRELOAD_LIBS  := $(PRELOAD_ENGINES:%=$(PRELOAD_DIR)/libmica-preload-%.so)

$(PRELOAD_DIR)/flags: FORCE
	$(call keep_flags,$(HOSTCC) $(PRELOAD_FLAGS) $(SRC_mm))

$(PRELOAD_DIR)/libmica-preload-%.so: tests/preload/preload.c $(SRC_mm) $(wildcard mm/*.h mm/include/mm/*.h) tests/preload/port_preload.h $(PRELOAD_DIR)/flags
	$(call say,PRELOAD,$@)
	$(Q)$(HOSTCC) $(PRELOAD_FLAGS) -DMM_GLOBAL_ENGINE=byte_$*_ops -shared -o $@ $(filter %.c,$^) -lpthread

$(PRELOAD_DIR)/libmica-preload.so: $(PRELOAD_DIR)/libmica-preload-$(ALLOC).so FORCE
	@cmp -s $< $@ || cp $< $@

preload: $(PRELOAD_DIR)/libmica-preload.so

PRELOAD_PROGRAMS := $(addprefix $(PRELOAD_DIR)/,give_back forks misuse errors)

$(PRELOAD_PROGRAMS): $(PRELOAD_DIR)/%: tests/preload/%.c $(PRELOAD_DIR)/flags
	@mkdir -p $(@D)
	$(Q)$(HOSTCC) $(WARN) -O1 -g -fno-builtin-malloc -o $@ $<

preload-test: $(PRELOAD_LIBS) $(PRELOAD_PROGRAMS)
	$(Q)scripts/preload-test.sh $(PRELOAD_DIR) $(PRELOAD_LIBS)

# --- Running ----------------------------------------------------------------

# $(1): options of the script; QEMU_ARGS may end in `--` and QEMU's own.
qemu_run = $(PYTHON) scripts/qemu.py $(ARCH) $(1) --dir $(B) --mem $(MEM) --smp $(SMP) $(QEMU_ARGS)

qemu-riscv64 qemu-aarch64: qemu-%:
	$(Q)scripts/setup.sh $*
	$(Q)$(MAKE) --no-print-directory -j$$(nproc) ARCH=$* kernel
	$(Q)$(MAKE) --no-print-directory ARCH=$* run

run:
	$(Q)$(call qemu_run)

# QEMU waits for gdb at the first instruction; both end together.
gdb-riscv64 gdb-aarch64: gdb-%:
	$(Q)scripts/setup.sh $* debug
	$(Q)$(MAKE) --no-print-directory ARCH=$* kernel
	$(Q)$(MAKE) --no-print-directory ARCH=$* debug

debug:
	$(Q)$$($(call qemu_run,--show)) -S -gdb tcp::1234 -serial file:build/gdb-console.log -monitor none & \
		gdb-multiarch -q -ex 'target remote :1234' $(B)/mica.elf; kill $$!

# --- Tests and checks -------------------------------------------------------

test:
	$(Q)scripts/setup.sh riscv64 aarch64 test debug bench
	$(Q)MAKEFLAGS=--no-print-directory scripts/test.sh

boot-test:
	$(Q)$(PYTHON) scripts/boot_matrix.py $(if $(CELL),"$(CELL)")

check-symbols: $(LINK_OBJS)
	$(Q)$(PYTHON) scripts/check_symbols.py $(KNM) $(O) $(B)

# Text and data of the image without tests: what a user's machine carries.
SIZE_LIMIT := 163840

size-check: $(B)/mica.bin
	@n=$$(wc -c < $(B)/mica.bin); echo "image: $$n bytes (limit $(SIZE_LIMIT))"; [ $$n -le $(SIZE_LIMIT) ]

# The embedding example keeps the few lines that its document shows.
SOURCES = $(filter-out tests/embed/embed.c tests/embed/port.h %.S,$(shell $(PYTHON) scripts/check_includes.py --list))

format:
	$(Q)scripts/setup.sh format
	$(Q)clang-format -i $(SOURCES)

check:
	$(Q)scripts/setup.sh format
	$(Q)$(PYTHON) scripts/check_includes.py
	$(Q)clang-format --dry-run --Werror $(SOURCES)
	$(Q)sed -n '/^```c$$/,/^```$$/p' docs/memory.md | sed '1d;$$d' | cmp - mm/test/test_cache_example.c

# --- Housekeeping -----------------------------------------------------------

define HELP
Mica: a bare-metal mini-kernel around a memory library.

  make qemu-riscv64    build, boot under OpenSBI, run the self-tests; then a prompt on a terminal
  make qemu-aarch64    the same on AArch64
  make test            every test, on the host and emulated; ends in "N passed, N failed"
  make gdb-riscv64     boot and stop at the first instruction, under gdb (also gdb-aarch64)
  make kernel          build the kernel of ARCH
  make host-test       the self-tests on this machine, under sanitizers (FILTER='mm/*')
  make inject-test     the same, with every allocation failing once
  make worst-test      instructions of the worst operations, against their bounds
  make misuse-test     each misuse on each engine and level, against docs/memory.md
  make fuzz-mm         libFuzzer on the engines, the pages and the facade (FUZZ_SECONDS=10)
  make coverage        lines and branches of mm/ that the tests take
  make boot-test       the boot matrix alone (CELL='riscv64*')
  make fdt-test        the device tree reader against libfdt, on trees of many machines
  make embed-test      the example of docs/embedding.md, built with each library, and run
  make bench-test      the benchmark's tools
  make check-symbols   what mm/, dma/ and kernel/lib/ of ARCH refer to; size-check: how large its image is (TESTS=0)
  make bench-guest     instructions per allocation on both targets (GUEST_ENGINES=slab)
  make lib             the memory library for the host and both targets (PORT=file.h, MAX_CPUS=8; LIB_ARCHES=host)
  make preload         the library as a malloc for Linux programs: build/preload/libmica-preload.so
  make preload-test    real programs over it, over each engine
  make bench           measure the allocators and their peers (QUICK=1: two minutes); tables, plots
  make bench-docs      the last results of make bench, into docs/benchmarks.md
  make harden-cost     instructions of each hardening level, into docs/memory.md
  make bench-record    record a program's use of malloc for it (PROG='command ...')
  make format check    clang-format all sources; only check them, and the includes
  make clean           remove build/

  ARCH=riscv64|aarch64    ALLOC=tlsf|slab|buddy    HARDEN=0..3    DEBUG=1    TESTS=0
  LLVM=1 (clang, lld)     CROSS_COMPILE=prefix-    SMP=n  MEM=512M  QEMU_ARGS='--cpu max'
  V=1 (show commands)     SETUP=no (install nothing)
endef

help:
	$(info $(HELP))
	@:

clean:
	rm -rf build

FORCE:
.PHONY: FORCE help test run debug boot-test check-symbols size-check format check \
	qemu-riscv64 qemu-aarch64 gdb-riscv64 gdb-aarch64 fdt-test bench-plugins bench-guest kernel host-test lib embed-programs embed-test preload preload-test clean
