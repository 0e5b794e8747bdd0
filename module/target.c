// SPDX-License-Identifier: GPL-2.0
/*
 * The dm target "snapdiff".
 *
 *	bio				what happens to it
 *	read, flush			goes to the primary
 *	write, write-zeroes, discard	enters the gate; nothing is kept, or all its chunks are in the changed set: goes to the primary; else it is deferred
 *					to the copy path (cow.c), which sends it on
 *	secure erase			refused while the changed set of any generation is kept
 *
 * Bios go to the primary whole: nothing is cut at chunk borders. Who entered the gate leaves it when the primary has completed the bio.
 */
#include <linux/module.h>
#include <linux/slab.h>
#include "cow.h"

#define DM_MSG_PREFIX SNAP_NAME

/* struct snap_table - one table of a volume; ti->private */
struct snap_table {
	struct snap_volume *vol;
	struct dm_dev *primary, *diff;
	struct snap_params params;
	bool applied;		/* its features have been applied to the volume */
};

/* ---- map --------------------------------------------------------------------------------------- */

static int refuse(struct bio *bio)
{
	bio->bi_status = BLK_STS_NOTSUPP;
	bio_endio(bio);
	return DM_MAPIO_SUBMITTED;
}

/* A bio that changes the primary; it is inside the gate. */
static int map_change(struct snap_volume *vol, struct bio *bio)
{
	u64 first, last;

	if (!READ_ONCE(vol->cow->kept))
		return DM_MAPIO_REMAPPED;
	if (bio_op(bio) == REQ_OP_SECURE_ERASE)
		return refuse(bio);
	first = bio->bi_iter.bi_sector >> vol->chunk_shift;
	last = (bio_end_sector(bio) - 1) >> vol->chunk_shift;
	if (snap_bits_all(vol->bits, first, last))
		return DM_MAPIO_REMAPPED;
	snap_count(vol, SNAP_C_DEFERRED);
	snap_cow_defer(vol->cow, bio, first, last);
	return DM_MAPIO_SUBMITTED;
}

static int enter_and_map(struct snap_volume *vol, struct bio *bio)
{
	if (!snap_gate_enter(vol->gate, bio))
		return DM_MAPIO_SUBMITTED;
	snap_bio_pbio(bio)->inside = true;
	return map_change(vol, bio);
}

/* The gate has opened: what it kept is sent again. */
static void resubmit(void *ctx, struct bio_list *bios)
{
	struct snap_volume *vol = ctx;
	struct bio *bio;

	while ((bio = bio_list_pop(bios))) {
		if (enter_and_map(vol, bio) == DM_MAPIO_REMAPPED)
			submit_bio_noacct(bio);
	}
}

static int snapdiff_map(struct dm_target *ti, struct bio *bio)
{
	struct snap_volume *vol = ((struct snap_table *)ti->private)->vol;

	snap_bio_pbio(bio)->inside = false;
	bio_set_dev(bio, vol->primary_bdev);
	if (!op_is_write(bio_op(bio))) {
		snap_count(vol, SNAP_C_READS);
		return DM_MAPIO_REMAPPED;
	}
	if (!bio_sectors(bio))
		return DM_MAPIO_REMAPPED;	/* an empty flush */
	snap_count(vol, SNAP_C_WRITES);
	return enter_and_map(vol, bio);
}

static int snapdiff_end_io(struct dm_target *ti, struct bio *bio, blk_status_t *error)
{
	struct snap_pbio *pb = snap_bio_pbio(bio);

	if (pb->inside) {
		struct snap_volume *vol = ((struct snap_table *)ti->private)->vol;

		/* From now on it matters that the store remembers its failure; until then it is as after a crash. */
		if (!*error && unlikely(snap_store_failed(vol->store)))
			WRITE_ONCE(vol->overtaken, true);
		pb->inside = false;
		snap_gate_leave(vol->gate);
	}
	return DM_ENDIO_DONE;
}

/* ---- tables ------------------------------------------------------------------------------------ */

static int get_devices(struct dm_target *ti, char **argv, struct snap_table *t)
{
	int err = dm_get_device(ti, argv[0], dm_table_get_mode(ti->table), &t->primary);

	if (err) {
		ti->error = "PRIMARY: cannot be opened";
		return err;
	}
	err = dm_get_device(ti, argv[1], dm_table_get_mode(ti->table), &t->diff);
	if (err) {
		ti->error = "DIFF: cannot be opened";
		dm_put_device(ti, t->primary);
	}
	return err;
}

static void set_up(struct dm_target *ti)
{
	ti->num_flush_bios = 1;
	ti->num_discard_bios = 1;
	ti->num_write_zeroes_bios = 1;
	ti->num_secure_erase_bios = 1;
	ti->flush_supported = true;
	ti->per_io_data_size = sizeof(struct snap_pbio);
}

static int snapdiff_ctr(struct dm_target *ti, unsigned int argc, char **argv)
{
	struct snap_table *t;
	int err;

	if (argc < 2) {
		ti->error = "want: PRIMARY DIFF [#features ...]";
		return -EINVAL;
	}
	t = kzalloc(sizeof(*t), GFP_KERNEL);
	if (!t) {
		ti->error = "no memory";
		return -ENOMEM;
	}
	err = snap_params_parse(ti, argc - 2, argv + 2, &t->params);
	if (err)
		goto free;
	err = get_devices(ti, argv, t);
	if (err)
		goto free;
	t->vol = snap_volume_open(ti, t->primary, t->diff, &t->params, resubmit);
	if (IS_ERR(t->vol)) {
		err = PTR_ERR(t->vol);
		goto put_devices;
	}
	set_up(ti);
	ti->private = t;
	return 0;
put_devices:
	dm_put_device(ti, t->diff);
	dm_put_device(ti, t->primary);
free:
	kfree(t);
	return err;
}

static void snapdiff_dtr(struct dm_target *ti)
{
	struct snap_table *t = ti->private;

	snap_volume_close(t->vol, ti);
	dm_put_device(ti, t->diff);
	dm_put_device(ti, t->primary);
	kfree(t);
}

static int snapdiff_preresume(struct dm_target *ti)
{
	struct snap_table *t = ti->private;
	unsigned int noio = memalloc_noio_save();
	int err;

	if (!t->applied && t->params.has_on_full)
		WRITE_ONCE(t->vol->on_full, t->params.on_full);
	t->applied = true;
	err = snap_volume_attach(t->vol, ti);
	memalloc_noio_restore(noio);
	return err;
}

/* The policy may have been changed since (netlink): the line says what holds now, so that loading it again changes nothing. */
static unsigned int emit_table(struct snap_table *t, char *result, unsigned int sz, unsigned int maxlen)
{
	struct snap_params p = t->params;

	if (t->applied && READ_ONCE(t->vol->on_full) != SNAPDIFF_ON_FULL_DROP_OLDEST)
		p.has_on_full = true;
	if (t->applied && p.has_on_full)
		p.on_full = READ_ONCE(t->vol->on_full);
	DMEMIT("%s %s", t->primary->name, t->diff->name);
	return snap_params_emit(&p, result, sz, maxlen);
}

static void snapdiff_status(struct dm_target *ti, status_type_t type, unsigned int flags, char *result, unsigned int maxlen)
{
	struct snap_table *t = ti->private;
	unsigned int sz = 0;

	switch (type) {
	case STATUSTYPE_INFO:
		sz = snap_status_emit(t->vol, result, sz, maxlen);
		break;
	case STATUSTYPE_TABLE:
		sz = emit_table(t, result, sz, maxlen);
		break;
	case STATUSTYPE_IMA:
		DMEMIT_TARGET_NAME_VERSION(ti->type);
		DMEMIT(",primary=%s,diff=%s;", t->primary->name, t->diff->name);
		break;
	}
}

static int snapdiff_iterate_devices(struct dm_target *ti, iterate_devices_callout_fn fn, void *data)
{
	return fn(ti, ((struct snap_table *)ti->private)->primary, 0, ti->len, data);
}

static struct target_type snapdiff_target = {
	.name = SNAP_NAME,
	.version = { 1, 0, 0 },
	.features = DM_TARGET_SINGLETON | DM_TARGET_ALWAYS_WRITEABLE,
	.module = THIS_MODULE,
	.ctr = snapdiff_ctr,
	.dtr = snapdiff_dtr,
	.map = snapdiff_map,
	.end_io = snapdiff_end_io,
	.preresume = snapdiff_preresume,
	.status = snapdiff_status,
	.iterate_devices = snapdiff_iterate_devices,
};

/** snap_target_init() - last at module load: from here on tables can be made */
int snap_target_init(void)
{
	return dm_register_target(&snapdiff_target);
}

/** snap_target_exit() - first at unload: no table is left, each of them held the module */
void snap_target_exit(void)
{
	dm_unregister_target(&snapdiff_target);
}
