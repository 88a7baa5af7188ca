/* SPDX-License-Identifier: MIT */
/* SHA-256 (FIPS 180-4), to compare what was read with what the host wrote. */
#ifndef LIB_SHA256_H
#define LIB_SHA256_H

#include <stddef.h>
#include <stdint.h>

#define SHA256_SIZE  32
#define SHA256_BLOCK 64

struct sha256 {
	uint32_t state[8];
	uint64_t nbytes;
	uint8_t block[SHA256_BLOCK];
};

void sha256_init(struct sha256 *s);
void sha256_update(struct sha256 *s, const void *data, size_t nbytes);
void sha256_final(struct sha256 *s, uint8_t digest[SHA256_SIZE]);
/* 64 hexadecimal digits and a NUL. */
void sha256_text(const uint8_t digest[SHA256_SIZE], char out[2 * SHA256_SIZE + 1]);

#endif
