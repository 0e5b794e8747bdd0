// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The differential volume before it is attached: is there a store on it, and may there be one?
 *
 * The order of refusals in store_format(): not a block device, in use, read-only, too small, a store or something
 * foreign on it. Only then is anything written.
 */
#include <errno.h>
#include <string.h>

#include "../shim/offline.h"
#include "snapctl.h"

#define CHUNK_MIN	4096u
#define CHUNK_MAX	(1u << 20)

_Static_assert(STORE_MIN_SIZE == SNAP_OFFLINE_MIN_SIZE, "snapctl.h says what offline.h says");

int store_check_chunk(uint64_t chunk_size, struct snap_err *e)
{
	char size[16];

	if (!chunk_size || (chunk_size >= CHUNK_MIN && chunk_size <= CHUNK_MAX &&
			    !(chunk_size & (chunk_size - 1))))
		return 0;
	return snap_err_set(e, -EINVAL, snap_format_size(size, sizeof(size), chunk_size),
			    "not a chunk size: a power of two from 4k to 1M expected");
}

int store_identify(const char *path, struct store_id *id, struct snap_err *e)
{
	struct snap_offline_id found;
	int err = snap_offline_identify(path, &found);

	if (err == -ENODATA)
		return 0;
	if (err == -EUCLEAN || err == -EBADMSG || err == -EILSEQ)
		return snap_err_set(e, -EUCLEAN, path, "its snapdiff store is damaged: no valid superblock (see snapmeta check)");
	if (err)
		return snap_err_sys(e, err, path, "cannot read the superblock");
	if (!id)
		return 1;
	memcpy(id->uuid, found.uuid, sizeof(id->uuid));
	id->diff_size = found.diff_size;
	id->primary_size = found.primary_size;
	return 1;
}

/* Something that is not ours on the device? Return: 0, 1 (told in @e), -errno. */
static int foreign(const char *path, struct snap_err *e)
{
	struct snap_blk_sig sig;
	int rc = snap_blk_signature(path, &sig, e);

	if (rc != 1)
		return rc;
	snap_err_set(e, -EEXIST, path, "refusing to format: contains %s%s%s%s%s (--force overwrites it)", sig.type,
		     sig.usage[0] ? ", " : "", sig.usage, sig.label[0] ? ", labelled " : "", sig.label);
	return 1;
}

static int check_content(const char *path, bool force, struct snap_err *e)
{
	int rc = store_identify(path, NULL, e);

	if (rc == 1 && !force)
		return snap_err_set(e, -EEXIST, path, "refusing to format: contains a snapdiff store (--force overwrites it with all its generations)");
	if (rc == -EUCLEAN && !force)
		return snap_err_set(e, -EEXIST, path, "refusing to format: contains a damaged snapdiff store (--force overwrites it)");
	if (rc < 0 && rc != -EUCLEAN)
		return rc;
	rc = foreign(path, e);
	if (rc < 0)
		return rc;
	if (!rc)
		return 0;
	return force ? snap_blk_wipe(path, e) : -EEXIST;
}

int store_format(const char *path, const struct store_opts *opts, struct snap_err *e)
{
	struct snap_offline_format_opts fo = {
		.chunk_size = opts->chunk_size,
		.journal_size = opts->journal_size,
		.force = opts->force,
	};
	char why[256] = "";
	struct snap_blk blk;
	int err;

	err = store_check_chunk(opts->chunk_size, e);
	if (!err)
		err = snap_blk_info(path, &blk, e);
	if (!err)
		err = snap_blk_check_free(path, e);
	if (err)
		return err;
	if (blk.read_only)
		return snap_err_set(e, -EACCES, path, "cannot format: the device is read-only");
	if (blk.size < STORE_MIN_SIZE)
		return snap_err_set(e, -EMEDIUMTYPE, path, "too small for a diff: %llu bytes, at least %llu are needed",
				    (unsigned long long)blk.size, (unsigned long long)STORE_MIN_SIZE);
	err = check_content(path, opts->force, e);
	if (err)
		return err;
	err = snap_offline_format(path, &fo, why, sizeof(why));
	if (err == -ENOSPC)	/* the wrong device, not a failure of this one */
		err = -EMEDIUMTYPE;
	if (err)
		return snap_err_set(e, err, path, "cannot format: %s", why[0] ? why : strerror(-err));
	return 0;
}
