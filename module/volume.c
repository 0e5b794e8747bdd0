// SPDX-License-Identifier: GPL-2.0
/*
 * Volumes: the list of them, how one comes to be and goes.
 *
 *   opened	by the first table that names the pair (constructor): the store is recovered, nothing is written to the primary's side
 *			It is in the list while that goes on, without a table: the pair is taken, and nobody waits for a slow diff
 *   attached	first resume: the primary is compared, the store marked as in use; the volume can be found by name
 *   dead	its last table is being destroyed: unreachable -> virtual volumes EIO, no change accepted -> drained -> threads ended -> store
 *		detached, devices given back. It stays in the list until then, so that nobody opens the pair meanwhile
 *   freed	the last reference (virtual volumes, netlink operations) is put
 *
 * Resuming again takes nothing but a larger primary. It must not wait for vol->control: who cuts a generation holds it while he waits for a filesystem that
 * cannot write as long as the device is suspended.
 *
 * dm has waited for all bios before it destroys a table, and a table that is destroyed has left the device: nobody can be inside map.
 */
#include <linux/dm-ioctl.h>
#include <linux/log2.h>
#include <linux/percpu.h>
#include <linux/slab.h>
#include "cow.h"

#define DM_MSG_PREFIX SNAP_NAME

DEFINE_MUTEX(snap_volumes_lock);
LIST_HEAD(snap_volumes);
static u64 last_position;	/* under snap_volumes_lock */
static DEFINE_MUTEX(live_lock);	/* leaf but for dm's own event lock */
static DEFINE_MUTEX(name_lock);	/* vol->name; leaf but for dm's own lock of names */

/** snap_counter_read() - sum over all CPUs. Any context */
u64 snap_counter_read(struct snap_volume *vol, enum snap_counter c)
{
	u64 sum = 0;
	int cpu;

	for_each_possible_cpu(cpu)
		sum += READ_ONCE(per_cpu_ptr(vol->counters, cpu)->n[c]);
	return sum;
}

/* Under snap_volumes_lock, not under control: an answer of a moment ago is as good. */
static bool reachable(const struct snap_volume *vol)
{
	return READ_ONCE(vol->attached) && !READ_ONCE(vol->dead) && vol->tables;
}

/**
 * snap_volume_rename() - take over the name that the dm device has by now
 *
 * dm does not tell its targets. With an old name kept, the next device of that name would be taken for this one, and its generations be deleted for those of the other.
 * Who only shows the name may see a mixture of the two for a moment; it ends within its array. The dm device is there. May block, not for I/O.
 */
void snap_volume_rename(struct snap_volume *vol)
{
	char name[sizeof(vol->name)];

	BUILD_BUG_ON(sizeof(name) < DM_NAME_LEN);
	mutex_lock(&name_lock);
	if (!dm_copy_name_and_uuid(vol->md, name, NULL) && strcmp(vol->name, name))
		strscpy_pad(vol->name, name, sizeof(vol->name));
	mutex_unlock(&name_lock);
}

static bool has_name(struct snap_volume *vol, const char *name)
{
	bool has;

	snap_volume_rename(vol);
	mutex_lock(&name_lock);
	has = !strcmp(vol->name, name);
	mutex_unlock(&name_lock);
	return has;
}

/** snap_volume_find() - by dm name; a reference, or NULL. May block */
struct snap_volume *snap_volume_find(const char *name)
{
	struct snap_volume *vol, *found = NULL;

	mutex_lock(&snap_volumes_lock);
	list_for_each_entry(vol, &snap_volumes, list) {
		if (reachable(vol) && has_name(vol, name)) {
			snap_volume_get(vol);
			found = vol;
			break;
		}
	}
	mutex_unlock(&snap_volumes_lock);
	return found;
}

/** snap_volume_next() - the volume behind position *@pos in the order of attachment, referenced; sets *@pos. NULL at the end. May block */
struct snap_volume *snap_volume_next(u64 *pos)
{
	struct snap_volume *vol, *found = NULL;

	mutex_lock(&snap_volumes_lock);
	list_for_each_entry(vol, &snap_volumes, list) {
		if (reachable(vol) && vol->position > *pos && (!found || vol->position < found->position))
			found = vol;
	}
	if (found) {
		snap_volume_rename(found);
		snap_volume_get(found);
		*pos = found->position;
	}
	mutex_unlock(&snap_volumes_lock);
	return found;
}

void snap_volume_get(struct snap_volume *vol)
{
	kref_get(&vol->ref);
}

static void volume_free(struct kref *ref)
{
	struct snap_volume *vol = container_of(ref, struct snap_volume, ref);

	snap_cow_destroy(vol->cow);
	snap_bits_destroy(vol->bits);
	snap_gate_free(vol->gate);
	snap_store_free(vol->store);
	free_percpu(vol->counters);
	mutex_destroy(&vol->control);
	kfree(vol);
}

/** snap_volume_put() - may block and free */
void snap_volume_put(struct snap_volume *vol)
{
	kref_put(&vol->ref, volume_free);
}

/** snap_target_event() - dm_table_event() of the volume's live table. May sleep. Nothing when @vol is dead */
void snap_target_event(struct snap_volume *vol)
{
	mutex_lock(&live_lock);
	if (vol->live)
		dm_table_event(vol->live);
	mutex_unlock(&live_lock);
}

static void set_live(struct snap_volume *vol, struct dm_table *table)
{
	mutex_lock(&live_lock);
	vol->live = table;
	mutex_unlock(&live_lock);
}

static void unset_live(struct snap_volume *vol, const struct dm_table *table)
{
	mutex_lock(&live_lock);
	if (vol->live == table)
		vol->live = NULL;
	mutex_unlock(&live_lock);
}

/* ---- coming ------------------------------------------------------------------------------------ */

static bool overlap(struct block_device *a, struct block_device *b)
{
	sector_t as = get_start_sect(a), bs = get_start_sect(b);

	return a->bd_disk == b->bd_disk && as < bs + bdev_nr_sectors(b) && bs < as + bdev_nr_sectors(a);
}

/* Can these two be a volume at all? */
static int check_pair(struct dm_target *ti, struct block_device *primary, struct block_device *diff)
{
	if (overlap(primary, diff))
		ti->error = "DIFF: is the same device as PRIMARY, or overlaps with it";
	else if (bdev_is_zoned(primary) || bdev_is_zoned(diff))
		ti->error = "zoned devices are not supported";
	else if (snap_bdev_has_integrity(primary) || snap_bdev_has_integrity(diff))
		ti->error = "devices with an integrity profile are not supported";
	else if (bdev_logical_block_size(primary) > 4096 || bdev_logical_block_size(diff) > 4096)
		ti->error = "logical blocks larger than 4096 bytes are not supported";
	else if (ti->begin)
		ti->error = "the target must begin at sector 0";
	else
		return 0;
	return -EINVAL;
}

/*
 * A volume has the size of its primary. One that runs (@vol) can become larger, and stays as it is until that is wanted; it cannot become smaller, because
 * what is cut off is lost to its generations.
 */
static int check_length(struct dm_target *ti, const struct snap_volume *vol, struct block_device *primary, const struct snap_params *p)
{
	sector_t have = bdev_nr_sectors(primary), size = vol ? READ_ONCE(vol->size) : 0;

	if (vol && ti->len < size && !p->accept_changed)
		ti->error = "length: a volume cannot shrink while it runs";
	else if (ti->len != have && !(vol && ti->len == size && ti->len < have))
		ti->error = "length: is not the size of PRIMARY";
	else
		return 0;
	return -EINVAL;
}

static bool uses(struct snap_volume *vol, struct block_device *bdev)
{
	return overlap(vol->primary_bdev, bdev) || overlap(vol->diff_bdev, bdev);
}

/* The volume that has this pair under the same dm device; NULL: none; ERR_PTR: somebody else is using one of the devices. */
static struct snap_volume *find_pair(struct dm_target *ti, struct dm_dev *primary, struct dm_dev *diff)
{
	struct mapped_device *md = dm_table_get_md(ti->table);
	struct snap_volume *vol;

	list_for_each_entry(vol, &snap_volumes, list) {
		if (vol->md == md && vol->tables && vol->primary == primary && vol->diff == diff)
			return vol;
		if (vol->md == md && vol->tables) {
			ti->error = "the device runs with another PRIMARY or DIFF";
			return ERR_PTR(-EBUSY);
		}
		if (uses(vol, primary->bdev)) {
			ti->error = "PRIMARY: is used by another snapdiff volume";
			return ERR_PTR(-EBUSY);
		}
		if (uses(vol, diff->bdev)) {
			ti->error = "DIFF: is used by another snapdiff volume";
			return ERR_PTR(-EBUSY);
		}
	}
	return NULL;
}

static struct snap_volume *volume_alloc(struct dm_target *ti, struct dm_dev *primary, struct dm_dev *diff)
{
	struct snap_volume *vol = kzalloc(sizeof(*vol), GFP_KERNEL);

	if (!vol)
		return NULL;
	kref_init(&vol->ref);
	INIT_LIST_HEAD(&vol->list);
	INIT_LIST_HEAD(&vol->virts);
	mutex_init(&vol->control);
	vol->md = dm_table_get_md(ti->table);
	vol->primary = primary;
	vol->diff = diff;
	vol->primary_bdev = primary->bdev;
	vol->diff_bdev = diff->bdev;
	vol->size = ti->len;
	vol->counters = alloc_percpu(struct snap_counters);
	if (!vol->counters) {
		kfree(vol);
		return NULL;
	}
	return vol;
}

/* What works on the store, once that is open. */
static int volume_parts(struct snap_volume *vol, void (*resubmit)(void *ctx, struct bio_list *bios))
{
	vol->gate = snap_gate_alloc(resubmit, vol);
	vol->bits = snap_bits_create(vol);
	if (!vol->gate || !vol->bits)
		return -ENOMEM;
	vol->cow = snap_cow_create(vol);
	if (IS_ERR(vol->cow)) {
		int err = PTR_ERR(vol->cow);

		vol->cow = NULL;
		return err;
	}
	snap_cow_start(vol->cow);
	return 0;
}

static int volume_open(struct snap_volume *vol, struct dm_target *ti, const struct snap_params *p,
		       void (*resubmit)(void *ctx, struct bio_list *bios))
{
	struct snap_store_opts opts = { .mem_records = p->mem_records, .error = &ti->error };
	u64 memory = (u64)p->cache_size << 20;
	int err;

	ti->error = "no memory for the volume";
	vol->memory = memory ?: SNAP_MEMORY_DEFAULT;
	opts.memory = memory ? memory / 8 * 3 : 0;
	err = dm_copy_name_and_uuid(vol->md, vol->name, NULL);
	if (!err)
		err = snap_store_open(vol, &opts);
	if (err)
		return err;
	if (vol->chunk_sectors < bdev_logical_block_size(vol->primary_bdev) >> SECTOR_SHIFT) {
		ti->error = "DIFF: its chunks are smaller than the logical blocks of PRIMARY";
		err = -EINVAL;
		goto close;
	}
	/* Here it can be said what is wrong; when the table is resumed it is looked at again. */
	ti->error = p->accept_changed ? NULL : (char *)snap_store_misfit(vol, ti->len);
	if (ti->error) {
		err = -EMEDIUMTYPE;
		goto close;
	}
	ti->error = "no memory for the volume";
	err = volume_parts(vol, resubmit);
	if (!err)
		return 0;
close:
	snap_store_stop(vol->store);
	if (vol->cow)
		snap_cow_stop(vol->cow);
	snap_store_close(vol, false);
	return err;
}

/* In the list, without a table. Under snap_volumes_lock. */
static struct snap_volume *volume_create(struct dm_target *ti, struct dm_dev *primary, struct dm_dev *diff)
{
	struct snap_volume *vol = volume_alloc(ti, primary, diff);

	if (!vol) {
		ti->error = "no memory for the volume";
		return ERR_PTR(-ENOMEM);
	}
	vol->position = ++last_position;
	list_add_tail(&vol->list, &snap_volumes);
	return vol;
}

static void volume_drop(struct snap_volume *vol)
{
	mutex_lock(&snap_volumes_lock);
	list_del_init(&vol->list);
	mutex_unlock(&snap_volumes_lock);
	snap_volume_put(vol);
}

static void volume_hold(struct snap_volume *vol, const struct snap_params *p)
{
	vol->tables++;
	vol->accept_changed = p->accept_changed;
	vol->trust_primary = p->trust_primary;
}

/**
 * snap_volume_open() - the volume of a pair for one more table
 * @resubmit: for its gate
 *
 * May block. Return: the volume with vol->tables counted up, or ERR_PTR with ti->error set.
 */
struct snap_volume *snap_volume_open(struct dm_target *ti, struct dm_dev *primary, struct dm_dev *diff, const struct snap_params *p,
				     void (*resubmit)(void *ctx, struct bio_list *bios))
{
	struct snap_volume *vol;
	bool first;
	int err = check_pair(ti, primary->bdev, diff->bdev);

	if (err)
		return ERR_PTR(err);
	mutex_lock(&snap_volumes_lock);
	vol = find_pair(ti, primary, diff);
	first = !vol;
	if (!IS_ERR(vol) && check_length(ti, vol, primary->bdev, p))
		vol = ERR_PTR(-EINVAL);
	else if (first)
		vol = volume_create(ti, primary, diff);
	else if (!IS_ERR(vol))
		volume_hold(vol, p);
	mutex_unlock(&snap_volumes_lock);
	if (!first || IS_ERR(vol))
		return vol;

	err = volume_open(vol, ti, p, resubmit);
	if (err) {
		volume_drop(vol);
		return ERR_PTR(err);
	}
	mutex_lock(&snap_volumes_lock);
	volume_hold(vol, p);
	mutex_unlock(&snap_volumes_lock);
	return vol;
}

static int first_attach(struct snap_volume *vol, struct dm_target *ti)
{
	int err;

	mutex_lock(&vol->control);
	snap_volume_rename(vol);
	WRITE_ONCE(vol->size, ti->len);
	err = snap_store_attach(vol, ti->len);
	if (!err) {
		set_live(vol, ti->table);
		snap_store_start(vol->store);
		WRITE_ONCE(vol->attached, true);
		snap_event(vol, SNAPDIFF_EVENT_ATTACHED, 0, 0, NULL);
	} else {
		DMERR("%s: the differential volume could not be marked as in use (error %d)", vol->name, err);
	}
	mutex_unlock(&vol->control);
	return err;
}

static void tell_resized(struct snap_volume *vol, const char *what, u64 from, u64 to)
{
	char text[96];

	snprintf(text, sizeof(text), "%s: from %llu to %llu bytes", what, from, to);
	snap_event(vol, SNAPDIFF_EVENT_RESIZED, 0, 0, text);
}

/* Not under control, see the top. */
static int resize(struct snap_volume *vol, sector_t size)
{
	sector_t old = vol->size;
	int err = 0;

	if (size > old)
		snap_store_resize_primary(vol, size);
	else
		err = snap_store_attach(vol, size);
	if (err)
		return err;
	WRITE_ONCE(vol->size, size);
	tell_resized(vol, "primary", (u64)old << SECTOR_SHIFT, (u64)size << SECTOR_SHIFT);
	return 0;
}

/**
 * snap_volume_attach() - the table of @ti is being resumed
 *
 * No bio is in the target. May block. Return: 0 or -errno.
 */
int snap_volume_attach(struct snap_volume *vol, struct dm_target *ti)
{
	int err = 0;

	if (!vol->attached)
		return first_attach(vol, ti);
	snap_volume_rename(vol);
	if (ti->len != vol->size)
		err = resize(vol, ti->len);
	if (!err)
		set_live(vol, ti->table);
	return err;
}

/** snap_volume_grow_diff() - the store takes what the differential volume has become larger by; snapdiff.h has more */
int snap_volume_grow_diff(struct snap_volume *vol, struct netlink_ext_ack *extack)
{
	struct snap_store_info info;
	u64 before;
	int err;

	snap_store_info(vol->store, &info);
	before = info.diff_size;
	err = snap_store_grow(vol->store);
	if (err == -EINVAL)
		snap_refuse(extack, "%s: the differential volume has %llu bytes, its store %llu: it cannot shrink", vol->name,
			    (u64)bdev_nr_sectors(vol->diff_bdev) << SECTOR_SHIFT, before);
	else if (err == -EIO)
		snap_refuse(extack, "%s: the differential volume has failed", vol->name);
	else if (err)
		snap_refuse(extack, "%s: the differential volume's new size could not be taken: error %d", vol->name, err);
	if (err)
		return err;
	snap_store_info(vol->store, &info);
	if (info.diff_size != before)
		tell_resized(vol, "differential volume", before, info.diff_size);
	return 0;
}

/* ---- going ------------------------------------------------------------------------------------- */

/* The phases stand at the top. */
static void volume_die(struct snap_volume *vol)
{
	bool attached = vol->attached;

	mutex_lock(&vol->control);
	WRITE_ONCE(vol->dead, true);
	mutex_unlock(&vol->control);
	snap_virt_volume_dead(vol);
	snap_store_shut(vol->store);

	snap_cow_drain(vol->cow);
	snap_store_stop(vol->store);
	snap_cow_stop(vol->cow);

	snap_store_close(vol, attached);
	if (attached)
		snap_event(vol, SNAPDIFF_EVENT_DETACHED, 0, 0, NULL);
}

/** snap_volume_close() - a table goes; with the last one the volume is dead when this returns, and its devices are not used any more. May block */
void snap_volume_close(struct snap_volume *vol, struct dm_target *ti)
{
	bool last;

	unset_live(vol, ti->table);
	mutex_lock(&snap_volumes_lock);
	last = !--vol->tables;
	mutex_unlock(&snap_volumes_lock);
	if (!last)
		return;
	volume_die(vol);
	mutex_lock(&snap_volumes_lock);
	list_del_init(&vol->list);
	mutex_unlock(&snap_volumes_lock);
	snap_volume_put(vol);
}
