/* SPDX-License-Identifier: GPL-2.0 */
/* The language of the portable core: kernel headers, or userspace/shim/sdshim.h which gives the same names. */
#ifndef SNAPDIFF_CORE_SYS_H
#define SNAPDIFF_CORE_SYS_H

#ifdef __KERNEL__
#include <linux/bitops.h>
#include <linux/build_bug.h>
#include "crc.h"
#include <linux/errno.h>
#include <linux/kernel.h>
#include <linux/limits.h>
#include <linux/list.h>
#include <linux/log2.h>
#include <linux/math64.h>
#include <linux/minmax.h>
#include <linux/mm.h>
#include <linux/rcupdate.h>
#include <linux/refcount.h>
#include <linux/slab.h>
#include <linux/stddef.h>
#include <linux/string.h>
#include <linux/types.h>
#include <linux/vmalloc.h>

/* The caller is inside memalloc_noio_save() wherever that matters. */
static inline void *sd_zalloc(size_t size)
{
	return kvzalloc(size, GFP_KERNEL);
}

static inline void *sd_malloc(size_t size)
{
	return kvmalloc(size, GFP_KERNEL);
}

/* Not from the reserves, also where small things may be. */
static inline void *sd_malloc_large(size_t size)
{
	return kvmalloc(size, GFP_KERNEL | __GFP_NOMEMALLOC | __GFP_NOWARN);
}

/*
 * Where there is no way back: a transaction that is being prepared or written, a commit. What is asked for is small, and soon given back; the alternative is a store that
 * fails for lack of memory.
 */
static inline void *sd_zalloc_sure(size_t size)
{
	return kvzalloc(size, GFP_KERNEL | __GFP_NOFAIL);
}

static inline void *sd_malloc_sure(size_t size)
{
	return kvmalloc(size, GFP_KERNEL | __GFP_NOFAIL);
}

static inline void sd_free(const void *p)
{
	kvfree(p);
}

static inline void sd_rcu_read_lock(void)
{
	rcu_read_lock();
}

static inline void sd_rcu_read_unlock(void)
{
	rcu_read_unlock();
}

/* After a grace period. Does not block. */
#define sd_free_rcu(p, member)	kvfree_rcu(p, member)

static inline u64 sd_div64(u64 a, u32 b)
{
	return div_u64(a, b);
}

#else
#include "sdshim.h"
#endif

#endif
