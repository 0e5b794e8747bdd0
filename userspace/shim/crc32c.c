// SPDX-License-Identifier: GPL-2.0-or-later
/* CRC-32C (Castagnoli): the processor's instruction where it has one, a table of eight otherwise. */
#include "sdshim.h"

static u32 table[8][256];

static void __attribute__((constructor)) table_init(void)
{
	for (u32 i = 0; i < 256; i++) {
		u32 c = i;

		for (int k = 0; k < 8; k++)
			c = c & 1 ? c >> 1 ^ 0x82f63b78 : c >> 1;
		table[0][i] = c;
	}
	for (u32 i = 0; i < 256; i++)
		for (int t = 1; t < 8; t++)
			table[t][i] = table[t - 1][i] >> 8 ^ table[0][table[t - 1][i] & 0xff];
}

static u32 crc_table(u32 crc, const u8 *p, size_t len)
{
	while (len >= 8) {
		u64 w;

		memcpy(&w, p, 8);
		w = le64toh(w) ^ crc;
		crc = 0;
		for (int t = 0; t < 8; t++)
			crc ^= table[7 - t][w >> 8 * t & 0xff];
		p += 8;
		len -= 8;
	}
	while (len--)
		crc = crc >> 8 ^ table[0][(crc ^ *p++) & 0xff];
	return crc;
}

#ifdef __x86_64__
static u32 __attribute__((target("sse4.2"))) crc_sse(u32 crc, const u8 *p, size_t len)
{
	u64 c = crc;

	for (; len >= 8; p += 8, len -= 8) {
		u64 w;

		memcpy(&w, p, 8);
		c = __builtin_ia32_crc32di(c, w);
	}
	crc = (u32)c;
	while (len--)
		crc = __builtin_ia32_crc32qi(crc, *p++);
	return crc;
}
#endif

u32 crc32c(u32 crc, const void *data, size_t len)
{
#ifdef __x86_64__
	if (__builtin_cpu_supports("sse4.2"))
		return crc_sse(crc, data, len);
#endif
	return crc_table(crc, data, len);
}
