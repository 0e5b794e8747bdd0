// SPDX-License-Identifier: GPL-2.0
/*
 * What a table line says and what status answers.
 *
 *	PRIMARY DIFF [#features [on_full drop-oldest|drop-all|fail-snapshots] [mem_records N] [cache_size MIB] [accept_changed] [trust_primary]]
 *
 * accept_changed and trust_primary hold for this one attachment and do not come back in the table: a table that is loaded again must neither give generations up
 * nor vouch for what happened meanwhile.
 *
 * Status (info), positional, fields are only ever inserted before the last one, the state:
 *
 *	used/all blocks of 4 KiB of the diff, sectors of a chunk, generations in the catalog, highest, newest live, newest kept,
 *	on_full, chunks copied, bios deferred, generations lost since attach, memory in use/its bound in KiB, state (rw | failed)
 */
#include "cow.h"

static const char * const on_full_names[] = {
	[SNAPDIFF_ON_FULL_DROP_OLDEST] = "drop-oldest",
	[SNAPDIFF_ON_FULL_DROP_ALL] = "drop-all",
	[SNAPDIFF_ON_FULL_FAIL] = "fail-snapshots",
};

static const char *on_full_name(u8 on_full)
{
	return on_full < ARRAY_SIZE(on_full_names) ? on_full_names[on_full] : "?";
}

static int parse_on_full(struct dm_target *ti, const char *word, struct snap_params *p)
{
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(on_full_names); i++) {
		if (word && !strcmp(word, on_full_names[i])) {
			p->on_full = i;
			p->has_on_full = true;
			return 0;
		}
	}
	ti->error = "on_full: want drop-oldest, drop-all or fail-snapshots";
	return -EINVAL;
}

static int parse_mem_records(struct dm_target *ti, const char *word, struct snap_params *p)
{
	if (word && !kstrtou32(word, 10, &p->mem_records) && p->mem_records >= 1024 && p->mem_records <= 1u << 24)
		return 0;
	ti->error = "mem_records: want a number from 1024 to 16777216";
	return -EINVAL;
}

static int parse_cache_size(struct dm_target *ti, const char *word, struct snap_params *p)
{
	if (word && !kstrtou32(word, 10, &p->cache_size) && p->cache_size >= 4 && p->cache_size <= 65536)
		return 0;
	ti->error = "cache_size: want a number of MiB from 4 to 65536";
	return -EINVAL;
}

static int parse_feature(struct dm_target *ti, struct dm_arg_set *as, unsigned int *left, struct snap_params *p)
{
	const char *name = dm_shift_arg(as);
	const char *value;

	--*left;
	if (!strcmp(name, "accept_changed")) {
		p->accept_changed = true;
		return 0;
	}
	if (!strcmp(name, "trust_primary")) {
		p->trust_primary = true;
		return 0;
	}
	if (strcmp(name, "on_full") && strcmp(name, "mem_records") && strcmp(name, "cache_size")) {
		ti->error = "unknown feature (known: on_full, mem_records, cache_size, accept_changed, trust_primary)";
		return -EINVAL;
	}
	value = *left ? dm_shift_arg(as) : NULL;
	if (value)
		--*left;
	if (!strcmp(name, "cache_size"))
		return parse_cache_size(ti, value, p);
	return strcmp(name, "on_full") ? parse_mem_records(ti, value, p) : parse_on_full(ti, value, p);
}

/**
 * snap_params_parse() - what follows the two devices
 *
 * May block. Return: 0 or -EINVAL with ti->error set.
 */
int snap_params_parse(struct dm_target *ti, unsigned int argc, char **argv, struct snap_params *p)
{
	static const struct dm_arg group = { 0, 8, "number of feature arguments: want 0 to 8" };
	struct dm_arg_set as = { .argc = argc, .argv = argv };
	unsigned int left;
	int err;

	memset(p, 0, sizeof(*p));
	if (!argc)
		return 0;
	err = dm_read_arg_group(&group, &as, &left, &ti->error);
	while (!err && left)
		err = parse_feature(ti, &as, &left, p);
	if (!err && as.argc) {
		ti->error = "more arguments than the number of feature arguments says";
		err = -EINVAL;
	}
	return err;
}

/** snap_params_emit() - the same as text that snap_params_parse() takes. Return: the new sz */
unsigned int snap_params_emit(const struct snap_params *p, char *result, unsigned int sz, unsigned int maxlen)
{
	unsigned int nr = 2 * p->has_on_full + 2 * !!p->mem_records + 2 * !!p->cache_size;

	DMEMIT(" %u", nr);
	if (p->has_on_full)
		DMEMIT(" on_full %s", on_full_name(p->on_full));
	if (p->mem_records)
		DMEMIT(" mem_records %u", p->mem_records);
	if (p->cache_size)
		DMEMIT(" cache_size %u", p->cache_size);
	return sz;
}

/** snap_status_emit() - the status line of a volume. May block. Return: the new sz */
unsigned int snap_status_emit(struct snap_volume *vol, char *result, unsigned int sz, unsigned int maxlen)
{
	struct snap_store_info info;
	struct snap_summary sum;

	snap_store_info(vol->store, &info);
	snap_store_summary(vol->store, &sum);
	DMEMIT("%llu/%llu %u %u %u %u %u %s %llu %llu %llu %llu/%llu %s",
	       (info.diff_size - info.diff_free) >> 12, info.diff_size >> 12, vol->chunk_sectors, info.nr_gens, sum.highest, sum.newest_live,
	       sum.newest_kept, on_full_name(READ_ONCE(vol->on_full)),
	       snap_counter_read(vol, SNAP_C_COPIED) + snap_counter_read(vol, SNAP_C_ZEROS),
	       snap_counter_read(vol, SNAP_C_DEFERRED), snap_counter_read(vol, SNAP_C_LOST_GENS),
	       info.memory >> 10, info.memory_max >> 10,
	       snap_store_failed(vol->store) ? "failed" : "rw");
	return sz;
}
