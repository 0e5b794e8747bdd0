// SPDX-License-Identifier: GPL-2.0-or-later
/* See dev.h. */
#include <err.h>
#include <fcntl.h>
#include <malloc.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>
#include "dev.h"

const char * const part_names[PART_NR] = { "journal", "runs", "merges", "catalog", "bitmaps", "super" };

static void *at(struct benchdev *d, u64 block, u32 nr)
{
	if (block + nr > d->dev.nr_blocks)
		errx(1, "block %llu of %llu", (unsigned long long)block + nr, (unsigned long long)d->dev.nr_blocks);
	return d->map + block * SD_BLOCK_SIZE;
}

static int dev_read(void *ctx, u64 block, u32 nr, void *buf)
{
	struct benchdev *d = ctx;

	memcpy(buf, at(d, block, nr), (size_t)nr * SD_BLOCK_SIZE);
	d->n.read += nr;
	return 0;
}

static enum part part_of(const struct benchdev *d, const void *block)
{
	switch (le32_to_cpu(((const struct sd_disk_header *)block)->magic)) {
	case SD_MAGIC_LEAF:
	case SD_MAGIC_FENCE:
		return d->step && d->step->built ? PART_MERGES : PART_RUNS;	/* the run of the table in memory comes first */
	case SD_MAGIC_BITMAP:
		return PART_BITMAPS;
	case SD_MAGIC_CATALOG:
	case SD_MAGIC_INDEX:
		return PART_CATALOG;
	case SD_MAGIC_SUPER:
		return PART_SUPER;
	default:
		return PART_JOURNAL;
	}
}

static int dev_write(void *ctx, u64 block, u32 nr, const void *buf)
{
	struct benchdev *d = ctx;

	memcpy(at(d, block, nr), buf, (size_t)nr * SD_BLOCK_SIZE);
	d->n.written[part_of(d, buf)] += nr;	/* one call writes blocks of one kind, but for the fences of a run */
	return 0;
}

static int dev_flush(void *ctx)
{
	((struct benchdev *)ctx)->n.flushes++;
	return 0;
}

static int dev_get(void *ctx, u64 block, struct sd_buf *buf)
{
	static bool valid = true;	/* as in a cache: checked when it was read first */
	struct benchdev *d = ctx;

	buf->data = at(d, block, 1);
	buf->validated = &valid;
	d->n.got++;
	return 0;
}

static void dev_put(void *ctx, struct sd_buf *buf)
{
}

static void dev_forget(void *ctx, u64 block, u32 nr)
{
}

void benchdev_open(struct benchdev *d, const char *dir, u64 nr_blocks)
{
	static const struct sd_dev_ops ops = {
		.read = dev_read, .write = dev_write, .flush = dev_flush, .get = dev_get, .put = dev_put, .forget = dev_forget,
	};
	int fd = open(dir, O_TMPFILE | O_RDWR, 0600);

	memset(d, 0, sizeof(*d));
	if (fd < 0 || ftruncate(fd, nr_blocks * SD_BLOCK_SIZE))
		err(1, "%s", dir);
	d->map = mmap(NULL, nr_blocks * SD_BLOCK_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (d->map == MAP_FAILED)
		err(1, "mmap");
	close(fd);
	d->dev.ops = &ops;
	d->dev.ctx = d;
	d->dev.nr_blocks = nr_blocks;
}

void benchdev_close(struct benchdev *d)
{
	munmap(d->map, d->dev.nr_blocks * SD_BLOCK_SIZE);
}

u64 counts_written(const struct counts *n)
{
	u64 sum = 0;
	u32 i;

	for (i = 0; i < PART_NR; i++)
		sum += n->written[i];
	return sum;
}

struct counts counts_since(const struct counts *now, const struct counts *then)
{
	struct counts d = *now;
	u32 i;

	d.read -= then->read;
	d.got -= then->got;
	d.flushes -= then->flushes;
	for (i = 0; i < PART_NR; i++)
		d.written[i] -= then->written[i];
	return d;
}

/* ---- the heap: the linker sends the core's calls here (--wrap) ----------------------------------- */

void *__real_malloc(size_t size);
int __real_posix_memalign(void **p, size_t align, size_t size);
void __real_free(void *p);
void *__wrap_malloc(size_t size);
int __wrap_posix_memalign(void **p, size_t align, size_t size);
void __wrap_free(void *p);

static s64 heap, peak;		/* relative: the C library frees what it has not got from here */

static void *note(void *p)
{
	heap += (s64)malloc_usable_size(p);
	peak = max(peak, heap);
	return p;
}

void *__wrap_malloc(size_t size)
{
	return note(__real_malloc(size));
}

int __wrap_posix_memalign(void **p, size_t align, size_t size)
{
	int error = __real_posix_memalign(p, align, size);

	if (!error)
		note(*p);
	return error;
}

void __wrap_free(void *p)
{
	heap -= (s64)malloc_usable_size(p);
	__real_free(p);
}

s64 heap_now(void)
{
	return heap;
}

s64 heap_peak(void)
{
	return peak;
}

void heap_mark(void)
{
	peak = heap;
}

double now_s(void)
{
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}
