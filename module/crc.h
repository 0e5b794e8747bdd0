/* SPDX-License-Identifier: GPL-2.0 */
/*
 * crc32c(), and what it is in User-Mode Linux: elsewhere it is the processor's own instruction, but a UML kernel has only the table-driven function. That is many times
 * slower and would be the largest part of every figure measured there (crc.c).
 */
#ifndef SNAPDIFF_CRC_H
#define SNAPDIFF_CRC_H

#include <linux/crc32c.h>

#if defined(CONFIG_UML) && defined(CONFIG_X86_64)
/* [any context] as crc32c() */
u32 snap_crc32c(u32 crc, const void *data, size_t len);
/* Before the first snap_crc32c() */
void snap_crc_init(void);
#define crc32c	snap_crc32c
#else
static inline void snap_crc_init(void)
{
}
#endif

#endif
