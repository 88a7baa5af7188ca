/* SPDX-License-Identifier: MIT */
/*
 * libFuzzer target of one byte engine (FUZZ_ENGINE: byte_tlsf_ops, ...). The
 * bytes are operations of the shadow model that the property test uses too.
 */
#include <stdio.h>
#include <stdlib.h>

#include "../../mm/test/shadow.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t nbytes);

static _Alignas(4096) uint8_t arena[SHADOW_ARENA];
static struct shadow shadow;

static void expect(const char *wrong)
{
	if (!wrong)
		return;
	fprintf(stderr, "%s: %s\n", FUZZ_ENGINE.name, wrong);
	abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t nbytes)
{
	expect(shadow_init(&shadow, &FUZZ_ENGINE, arena));
	for (size_t i = 0; i + SHADOW_OP_BYTES <= nbytes; i += SHADOW_OP_BYTES)
		expect(shadow_step(&shadow, data + i));
	expect(shadow_finish(&shadow));
	return 0;
}
