// SPDX-License-Identifier: GPL-2.0-or-later
#include <sys/random.h>
#include <time.h>
#include "filedev.h"
#include "internal.h"
#include "offline.h"

static void new_uuid(u8 *uuid)
{
	if (getrandom(uuid, SD_UUID_SIZE, 0) != SD_UUID_SIZE)
		abort();
	uuid[6] = (uuid[6] & 0x0f) | 0x40;	/* RFC 4122: version 4 */
	uuid[8] = (uuid[8] & 0x3f) | 0x80;
}

static const char *reason(int err)
{
	switch (err) {
	case -EEXIST:
		return "already holds a differential volume";
	case -ENOSPC:
		return "too small (a differential volume needs 16 MiB and twice the size of its journal)";
	case -EINVAL:
		return "chunk size must be a power of two from 4k to 1M, the journal at least 128k";
	case -EBUSY:
		return "is in use (mounted, attached or held by another device)";
	case -ENOTBLK:
		return "is neither a block device nor a regular file";
	default:
		return strerror(-err);
	}
}

int snap_offline_format(const char *path, const struct snap_offline_format_opts *opts, char *err, size_t errlen)
{
	struct sd_format_params p = { .chunk_size = opts->chunk_size, .journal_blocks = opts->journal_size >> SD_BLOCK_SHIFT };
	struct snap_offline_id id;
	struct filedev f;
	struct timespec now;
	int ret = 0;

	if (!opts->force) {
		ret = snap_offline_identify(path, &id);
		if (!ret || ret == -EUCLEAN || ret == -ENOTSUPP)
			ret = -EEXIST;	/* a damaged one is still somebody's data */
		else if (ret == -ENODATA)
			ret = 0;
	}
	if (!ret)
		ret = filedev_open(&f, path, false, true);
	if (!ret) {
		clock_gettime(CLOCK_REALTIME, &now);
		p.now_ns = now.tv_sec * 1000000000ull + now.tv_nsec;
		new_uuid(p.uuid);
		if (opts->journal_size && !p.journal_blocks)
			ret = -EINVAL;
		else
			ret = sd_format(&f.dev, &p);
		filedev_close(&f);
	}
	if (ret && errlen)
		snprintf(err, errlen, "%s", reason(ret));
	return ret;
}

int snap_offline_identify(const char *path, struct snap_offline_id *id)
{
	struct sd_disk_super *d = sd_malloc(SD_BLOCK_SIZE);
	struct sd_store s = { 0 };
	struct filedev f;
	int err = d ? filedev_open(&f, path, true, false) : -ENOMEM;

	if (err) {
		free(d);
		return err;
	}
	s.dev = &f.dev;
	err = f.dev.nr_blocks < 2 ? -ENODATA : sd_super_read(&s, d);
	if (!err) {
		memcpy(id->uuid, d->hdr.uuid, sizeof(id->uuid));
		id->chunk_size = le32_to_cpu(d->chunk_size);
		id->diff_size = le64_to_cpu(d->nr_blocks) << SD_BLOCK_SHIFT;
		id->primary_size = le64_to_cpu(d->primary_sectors) << 9;
		id->journal_size = le64_to_cpu(d->journal_blocks) << SD_BLOCK_SHIFT;
		id->txid = le64_to_cpu(d->hdr.txid);
		id->state = le32_to_cpu(d->state);
	}
	filedev_close(&f);
	free(d);
	return err;
}

int snap_offline_check(const char *path, bool data, struct snap_offline_check *res, void (*say)(void *ctx, const char *text), void *ctx)
{
	struct sd_open_opts opts = { .read_only = true, .complain = say, .complain_ctx = ctx };
	struct sd_check_result r = { 0 };
	struct sd_store *s;
	struct filedev f;
	int err = filedev_open(&f, path, true, true);

	if (err)
		return err;
	err = sd_open(&f.dev, &opts, &s);
	if (!err) {
		err = sd_check(s, data ? SD_CHECK_DATA : 0, &r);
		sd_close(s);
	}
	res->errors = r.errors;
	res->blocks_used = r.blocks_used;
	res->blocks_leaked = r.blocks_leaked;
	res->blocks_missing = r.blocks_missing;
	res->records = r.records;
	res->data_bad = r.data_bad;
	filedev_close(&f);
	return err;
}
