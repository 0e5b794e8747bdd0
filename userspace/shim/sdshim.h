/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What module/core needs of the kernel's names when it is built for userspace. */
#ifndef SDSHIM_H
#define SDSHIM_H

#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <linux/types.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <endian.h>

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;
typedef int64_t s64;
typedef int32_t s32;

#define __packed		__attribute__((packed))
#define likely(x)		__builtin_expect(!!(x), 1)
#define unlikely(x)		__builtin_expect(!!(x), 0)
#define static_assert_size(t, n) _Static_assert(sizeof(t) == (n), #t)
#define container_of(p, type, member) ((type *)((char *)(p) - offsetof(type, member)))
#define ARRAY_SIZE(a)		(sizeof(a) / sizeof((a)[0]))
#define DIV_ROUND_UP(n, d)	(((n) + (d) - 1) / (d))
/* Names of their own for each use, so that min(a, min(b, c)) shadows nothing. */
#define SD_CAT_(a, b)		a##b
#define SD_NAME_(a, n)		SD_CAT_(a, n)
#define SD_PICK_(a, b, op, x, y) ({ __typeof__(a) x = (a); __typeof__(b) y = (b); x op y ? x : y; })
#define min(a, b)		SD_PICK_(a, b, <, SD_NAME_(_x, __COUNTER__), SD_NAME_(_y, __COUNTER__))
#define max(a, b)		SD_PICK_(a, b, >, SD_NAME_(_x, __COUNTER__), SD_NAME_(_y, __COUNTER__))
#define min_t(t, a, b)		min((t)(a), (t)(b))
#define max_t(t, a, b)		max((t)(a), (t)(b))
#define is_power_of_2(n)	((n) && !((n) & ((n) - 1)))
#define ilog2(n)		(63 - __builtin_clzll(n))
#define WARN_ON_ONCE(c)		({ bool _c = (c); if (_c) { fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #c); abort(); } _c; })

#define cpu_to_le16(x)		((__le16)htole16(x))
#define cpu_to_le32(x)		((__le32)htole32(x))
#define cpu_to_le64(x)		((__le64)htole64(x))
#define le16_to_cpu(x)		le16toh((u16)(x))
#define le32_to_cpu(x)		le32toh((u32)(x))
#define le64_to_cpu(x)		le64toh((u64)(x))

#define READ_ONCE(x)		(*(const volatile __typeof__(x) *)&(x))
#define WRITE_ONCE(x, v)	(*(volatile __typeof__(x) *)&(x) = (v))
#define smp_load_acquire(p)	__atomic_load_n(p, __ATOMIC_ACQUIRE)
#define smp_store_release(p, v)	__atomic_store_n(p, v, __ATOMIC_RELEASE)

#define BITS_PER_LONG		(8 * (int)sizeof(long))
static inline void __set_bit(unsigned long nr, unsigned long *a)
{
	a[nr / BITS_PER_LONG] |= 1ul << (nr % BITS_PER_LONG);
}

static inline bool test_bit(unsigned long nr, const unsigned long *a)
{
	return a[nr / BITS_PER_LONG] >> (nr % BITS_PER_LONG) & 1;
}

#define __ffs64(w)		((unsigned int)__builtin_ctzll(w))
#define fls64(w)		((w) ? 64u - (unsigned int)__builtin_clzll(w) : 0u)
#define hweight64(w)		((unsigned int)__builtin_popcountll(w))

typedef struct { int v; } refcount_t;
static inline void refcount_set(refcount_t *r, int n) { __atomic_store_n(&r->v, n, __ATOMIC_RELEASE); }
static inline void refcount_inc(refcount_t *r) { __atomic_add_fetch(&r->v, 1, __ATOMIC_ACQ_REL); }
static inline bool refcount_inc_not_zero(refcount_t *r)
{
	int v = __atomic_load_n(&r->v, __ATOMIC_ACQUIRE);

	while (v && !__atomic_compare_exchange_n(&r->v, &v, v + 1, true, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
		;
	return v;
}

static inline bool refcount_dec_and_test(refcount_t *r) { return !__atomic_sub_fetch(&r->v, 1, __ATOMIC_ACQ_REL); }
static inline int refcount_read(const refcount_t *r) { return __atomic_load_n(&r->v, __ATOMIC_ACQUIRE); }

struct list_head { struct list_head *next, *prev; };
#define LIST_HEAD_INIT(n)	{ &(n), &(n) }
static inline void INIT_LIST_HEAD(struct list_head *h) { h->next = h->prev = h; }
static inline bool list_empty(const struct list_head *h) { return h->next == h; }
static inline void list_add_tail(struct list_head *n, struct list_head *h)
{
	n->prev = h->prev;
	n->next = h;
	h->prev->next = n;
	h->prev = n;
}

static inline void list_del_init(struct list_head *e)
{
	e->prev->next = e->next;
	e->next->prev = e->prev;
	INIT_LIST_HEAD(e);
}

#define list_del(e)		list_del_init(e)
#define list_entry(p, t, m)	container_of(p, t, m)
#define list_first_entry(h, t, m) list_entry((h)->next, t, m)
#define list_for_each_entry(p, h, m) \
	for (p = list_entry((h)->next, __typeof__(*p), m); &p->m != (h); p = list_entry(p->m.next, __typeof__(*p), m))
#define list_for_each_entry_safe(p, n, h, m) \
	for (p = list_entry((h)->next, __typeof__(*p), m), n = list_entry(p->m.next, __typeof__(*p), m); \
	     &p->m != (h); p = n, n = list_entry(n->m.next, __typeof__(*n), m))

/* Page-aligned from a page on, so that files opened with O_DIRECT work. */
static inline void *sd_malloc(size_t size)
{
	void *p;

	if (size < 4096)
		return malloc(size);
	return posix_memalign(&p, 4096, size) ? NULL : p;
}

static inline void *sd_zalloc(size_t size)
{
	void *p = sd_malloc(size);

	if (p)
		memset(p, 0, size);
	return p;
}

static inline void *sd_malloc_large(size_t size)
{
	return sd_malloc(size);
}

/* In the kernel these do not fail; here there is nothing that could go wrong half-way but the program itself. */
static inline void *sd_malloc_sure(size_t size)
{
	return sd_malloc(size);
}

static inline void *sd_zalloc_sure(size_t size)
{
	return sd_zalloc(size);
}

static inline void sd_free(const void *p) { free((void *)p); }
/* One thread takes references here: nobody is about to. */
struct rcu_head { int none; };
static inline void sd_rcu_read_lock(void) { }
static inline void sd_rcu_read_unlock(void) { }
#define sd_free_rcu(p, member)	sd_free(p)
static inline u64 sd_div64(u64 a, u32 b) { return a / b; }

#ifndef ENOTSUPP
#define ENOTSUPP 524
#endif
#define U32_MAX UINT32_MAX
#define U64_MAX UINT64_MAX
#define scnprintf(buf, n, ...)	snprintf(buf, n, __VA_ARGS__)

/** crc32c() - as the kernel's: no inversion before or after */
u32 crc32c(u32 crc, const void *data, size_t len);

#endif
