/* SPDX-License-Identifier: GPL-2.0 */
/*
 * crc32c(), and what it is in User-Mode Linux: elsewhere it is the processor's own instruction, but a UML kernel has only the table-driven function. That is many times
 * slower and would be the largest part of every figure measured there. The instruction works on general registers, so it may be used in any context.
 */
#ifndef SNAPDIFF_CRC_H
#define SNAPDIFF_CRC_H

#include <linux/crc32c.h>

#if defined(CONFIG_UML) && defined(CONFIG_X86_64)
#include <asm/cpufeature.h>

static inline u32 snap_crc32c(u32 crc, const void *data, size_t len)
{
	const u8 *p = data;
	u64 sum = crc;

	if (!boot_cpu_has(X86_FEATURE_XMM4_2))
		return crc32c(crc, data, len);
	for (; len >= 8; p += 8, len -= 8)
		asm("crc32q %1, %0" : "+r" (sum) : "rm" (*(const u64 *)p));
	for (; len; p++, len--)
		asm("crc32b %1, %k0" : "+r" (sum) : "rm" (*p));
	return sum;
}

#define crc32c	snap_crc32c
#endif

#endif
