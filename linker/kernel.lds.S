/* SPDX-License-Identifier: MIT */
/*
 * The layout of the kernel image, the same on every architecture; linker/<arch>.h
 * says what differs. Virtual and physical addresses are congruent modulo 2 MiB, so
 * that boot can map the image with blocks wherever it was loaded.
 *
 *	__image_start	text	__text_start .. __text_end	read, execute
 *			rodata	__rodata_start .. __rodata_end	read
 *			data	__data_start .. __data_end	read, write:
 *				.data, .bss, then boot and emergency stack, each above
 *				a guard page that the final page table leaves out
 *	__image_end
 *
 * .head comes first: the image header, where firmware enters. What boot clears is
 * __bss_start .. __bss_end, both multiples of 64; the stacks are not cleared, nor is
 * section .bss.noinit, for what nobody reads before it is written. The statics of self-tests,
 * which are more than all others, are cleared when these begin.
 * Every section is named: an unknown one is an error (--orphan-handling=error).
 */
#define PAGE		     4096
#define BOOT_STACK_SIZE	     (16 * PAGE)
#define EMERGENCY_STACK_SIZE (2 * PAGE)
#define LOAD_AT(section)     AT(ADDR(section) - LINK_VA + LINK_PA)

OUTPUT_ARCH(LINK_ARCH)
ENTRY(__entry_pa)

PHDRS
{
	text PT_LOAD FLAGS(5);
	rodata PT_LOAD FLAGS(4);
	data PT_LOAD FLAGS(6);
}

SECTIONS
{
	. = LINK_VA;
	__image_start = .;

	__text_start = .;
	.text : LOAD_AT(.text) {
		KEEP(*(.head))
		*(.text .text.*)
		. = ALIGN(PAGE);
	} :text
	__text_end = .;

	__rodata_start = .;
	.rodata : LOAD_AT(.rodata) {
		*(.rodata .rodata.* .srodata .srodata.*)
		. = ALIGN(8);
		__start_selftests = .;
		KEEP(*(selftests))
		__stop_selftests = .;
		. = ALIGN(8);
		__start_drivers = .;
		KEEP(*(drivers))
		__stop_drivers = .;
		. = ALIGN(8);
		__start_virtio_drivers = .;
		KEEP(*(virtio_drivers))
		__stop_virtio_drivers = .;
		. = ALIGN(8);
		__start_commands = .;
		KEEP(*(commands))
		__stop_commands = .;
		/* Last, so that filling it in the second link moves no other constant. */
		. = ALIGN(8);
		KEEP(*(.ksyms))
		. = ALIGN(PAGE);
	} :rodata
	__rodata_end = .;

	__data_start = .;
	.data : LOAD_AT(.data) {
		*(.data .data.* .sdata .sdata.*)
		. = ALIGN(64);
	} :data
	.bss : LOAD_AT(.bss) {
		*(.bss.noinit)
		. = ALIGN(64);
		__test_bss_start = .;
		*test/?*.o(.bss .bss.* .sbss .sbss.* COMMON)
		. = ALIGN(64);
		__test_bss_end = .;
		__bss_start = .;
		*(.bss.page_aligned)
		*(.bss .bss.* .sbss .sbss.* COMMON)
		. = ALIGN(64);
		__bss_end = .;

		. = ALIGN(PAGE);
		__boot_stack_guard = .;
		. += PAGE;
		__boot_stack_bottom = .;
		. += BOOT_STACK_SIZE;
		__boot_stack_top = .;

		__emergency_stack_guard = .;
		. += PAGE;
		__emergency_stack_bottom = .;
		. += EMERGENCY_STACK_SIZE;
		__emergency_stack_top = .;
	} :data
	__data_end = .;
	__image_end = .;

	/* For the image header, and for loaders that enter an ELF. */
	__image_size = ABSOLUTE(__image_end - __image_start);
	__entry_pa = LINK_PA;

	/* Position-independent code would need these; there is none. */
	.got : { *(.got) } :data
	.got.plt : { *(.got.plt) } :data
	.plt : { *(.plt .plt.* .iplt .igot .igot.plt) } :data
	.rela : { *(.rela .rela.* .rel.*) } :data
	ASSERT(SIZEOF(.got) == 0, "the image has a global offset table")
	ASSERT(SIZEOF(.got.plt) == 0 || SIZEOF(.got.plt) == 0x18, "the image has a .got.plt")
	ASSERT(SIZEOF(.plt) == 0, "the image has a procedure linkage table")
	ASSERT(SIZEOF(.rela) == 0, "the image has relocations")
	ASSERT((LINK_VA - LINK_PA) % 0x200000 == 0, "LINK_VA and LINK_PA differ modulo 2 MiB")

	/* Not loaded. */
	.comment 0 : { *(.comment) } :NONE
	.debug_info 0 : { *(.debug_info) } :NONE
	.debug_abbrev 0 : { *(.debug_abbrev) } :NONE
	.debug_aranges 0 : { *(.debug_aranges) } :NONE
	.debug_addr 0 : { *(.debug_addr) } :NONE
	.debug_line 0 : { *(.debug_line) } :NONE
	.debug_line_str 0 : { *(.debug_line_str) } :NONE
	.debug_str 0 : { *(.debug_str) } :NONE
	.debug_str_offsets 0 : { *(.debug_str_offsets) } :NONE
	.debug_frame 0 : { *(.debug_frame) } :NONE
	.debug_loc 0 : { *(.debug_loc) } :NONE
	.debug_loclists 0 : { *(.debug_loclists) } :NONE
	.debug_ranges 0 : { *(.debug_ranges) } :NONE
	.debug_rnglists 0 : { *(.debug_rnglists) } :NONE
	.debug_macro 0 : { *(.debug_macro) } :NONE
	.debug_names 0 : { *(.debug_names) } :NONE
	.riscv.attributes 0 : { *(.riscv.attributes) } :NONE
	.symtab 0 : { *(.symtab) } :NONE
	.strtab 0 : { *(.strtab) } :NONE
	.shstrtab 0 : { *(.shstrtab) } :NONE

	/DISCARD/ : {
		*(.note .note.* .eh_frame .eh_frame_hdr .llvm_addrsig .interp .dynamic .dynsym
		  .dynstr .hash .gnu.hash .gnu.version*)
	}
}
