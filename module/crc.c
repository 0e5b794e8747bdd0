// SPDX-License-Identifier: GPL-2.0
/*
 * CRC32C by the processor's instruction in User-Mode Linux, in the way other kernels do it on x86: the instruction takes three cycles but can begin in each,
 * so three parts of a block are summed up at once and put together. It works on general registers, so it may be used in any context.
 *
 * Putting together: the sum of A, B is the sum of A, shifted by as many zero bytes as B has, xor the sum of B begun with 0. The shift is linear: one table for each
 * byte of the sum.
 */
#include "crc.h"

#if defined(CONFIG_UML) && defined(CONFIG_X86_64)
#include <linux/init.h>
#include <linux/types.h>
#include <asm/cpufeature.h>

#define LANE	1360u		/* bytes: three of them are a block of 4 KiB but for 16 bytes */

#undef crc32c

static u32 shift_table[4][256];
static bool has_instruction;

static inline u32 crc_u64(u32 crc, u64 word)
{
	u64 sum = crc;

	asm("crc32q %1, %0" : "+r" (sum) : "r" (word));
	return sum;
}

static u32 one_by_one(u32 crc, const u8 *p, size_t len)
{
	for (; len >= 8; p += 8, len -= 8)
		crc = crc_u64(crc, *(const u64 *)p);
	for (; len; p++, len--)
		asm("crc32b %1, %0" : "+r" (crc) : "r" (*p));
	return crc;
}

/* @crc as if LANE zero bytes had followed */
static u32 shift(u32 crc)
{
	return shift_table[0][crc & 0xff] ^ shift_table[1][crc >> 8 & 0xff] ^ shift_table[2][crc >> 16 & 0xff] ^ shift_table[3][crc >> 24];
}

static u32 three_lanes(u32 crc, const u8 *data)
{
	const u64 *a = (const u64 *)data, *b = (const u64 *)(data + LANE), *c = (const u64 *)(data + 2 * LANE);
	u32 crc_b = 0, crc_c = 0;
	unsigned int i;

	for (i = 0; i < LANE / 8; i++) {
		crc = crc_u64(crc, a[i]);
		crc_b = crc_u64(crc_b, b[i]);
		crc_c = crc_u64(crc_c, c[i]);
	}
	return shift(shift(crc) ^ crc_b) ^ crc_c;
}

u32 snap_crc32c(u32 crc, const void *data, size_t len)
{
	const u8 *p = data;

	if (!has_instruction)
		return crc32c(crc, data, len);
	for (; len >= 3 * LANE; p += 3 * LANE, len -= 3 * LANE)
		crc = three_lanes(crc, p);
	return one_by_one(crc, p, len);
}

void __init snap_crc_init(void)
{
	unsigned int byte, value, i;

	if (!boot_cpu_has(X86_FEATURE_XMM4_2))
		return;
	for (byte = 0; byte < 4; byte++) {
		for (value = 0; value < 256; value++) {
			u32 crc = value << (8 * byte);

			for (i = 0; i < LANE / 8; i++)
				crc = crc_u64(crc, 0);
			shift_table[byte][value] = crc;
		}
	}
	has_instruction = true;
	has_instruction = !WARN_ON(snap_crc32c(1, shift_table, sizeof(shift_table) - 5) != crc32c(1, shift_table, sizeof(shift_table) - 5));
}
#endif
