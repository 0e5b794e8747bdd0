// SPDX-License-Identifier: GPL-2.0
/*
 * Events: one call tells everybody who may want to know.
 *
 *   multicast "events" of the netlink family    programs that follow (snapctl monitor, the agent)
 *   dm event                                    dmsetup wait, dmeventd
 *   uevent of the dm disk                       udev rules; SNAPDIFF_EVENT, SNAPDIFF_GEN in the environment
 *   kernel log                                  what an administrator must find afterwards
 *
 * The dm device is there for as long as the volume is not dead, and dead is set under vol->control after the copy path's
 * housekeeping has ended or with it unable to start: events come from holders of vol->control, from the housekeeping work and from dm's own resume, so that none
 * of them sees the dm device go. After that only the multicast remains (detached, deactivated).
 */
#include <linux/kobject.h>
#include "snapdiff.h"

#define DM_MSG_PREFIX	SNAP_NAME

enum how { HOW_QUIET, HOW_INFO, HOW_WARN };

static const struct {
	const char *name;	/* as in the specification */
	enum how log;
	bool set;		/* the set of volumes, generations or virtual volumes is another one now */
	bool often;		/* may come in floods: no uevent, no dm event; the log is rate limited */
} events[] = {
	[SNAPDIFF_EVENT_ATTACHED]	= { "attached", HOW_INFO, .set = true },
	[SNAPDIFF_EVENT_DETACHED]	= { "detached", HOW_INFO, .set = true },
	[SNAPDIFF_EVENT_CREATED]	= { "created", HOW_QUIET, .set = true },
	[SNAPDIFF_EVENT_DELETED]	= { "deleted", HOW_QUIET, .set = true },
	[SNAPDIFF_EVENT_BOOKMARKED]	= { "bookmarked", HOW_QUIET, .set = true },
	[SNAPDIFF_EVENT_LOST]		= { "lost", HOW_WARN, .set = true },
	[SNAPDIFF_EVENT_ACTIVATED]	= { "activated", HOW_QUIET, .set = true },
	[SNAPDIFF_EVENT_DEACTIVATED]	= { "deactivated", HOW_QUIET, .set = true },
	[SNAPDIFF_EVENT_LOW_SPACE]	= { "low-space", HOW_WARN },
	[SNAPDIFF_EVENT_FULL]		= { "full", HOW_WARN },
	[SNAPDIFF_EVENT_SPACE_OK]	= { "space-ok", HOW_INFO },
	[SNAPDIFF_EVENT_STORE_FAILED]	= { "store-failed", HOW_WARN, .set = true },
	[SNAPDIFF_EVENT_BAD_CHUNK]	= { "bad-chunk", HOW_WARN, .often = true },
	[SNAPDIFF_EVENT_PINNED]		= { "pinned", HOW_QUIET },
	[SNAPDIFF_EVENT_UNPINNED]	= { "unpinned", HOW_QUIET },
	[SNAPDIFF_EVENT_RESIZED]	= { "resized", HOW_INFO },
	[SNAPDIFF_EVENT_SUSPECT]	= { "suspect", HOW_WARN, .set = true },
};

static atomic_t event_seq = ATOMIC_INIT(1);

/**
 * snap_event_seq() - a number that changes with every event that changes the set of volumes, generations or virtual volumes
 *
 * Dumps compare it to tell that they are not consistent. Never 0. Any context.
 */
unsigned int snap_event_seq(void)
{
	return (unsigned int)atomic_read(&event_seq) ?: 1;
}

static void event_log(struct snap_volume *vol, enum snapdiff_event type, u32 gen, int err, const char *text)
{
	char object[SNAPDIFF_NAME_MAX + 16], why[24] = "";

	if (gen)
		snprintf(object, sizeof(object), "%s@%u", vol->name, gen);
	else
		snprintf(object, sizeof(object), "%s", vol->name);
	if (err)
		snprintf(why, sizeof(why), " (error %d)", err);
	if (events[type].log == HOW_WARN)
		DMWARN_LIMIT("%s: %s%s%s%s", object, events[type].name, text ? ": " : "", text ?: "", why);
	else if (events[type].log == HOW_INFO)
		DMINFO("%s: %s%s%s%s", object, events[type].name, text ? ": " : "", text ?: "", why);
}

static void event_uevent(struct snap_volume *vol, enum snapdiff_event type, u32 gen)
{
	struct device *dev = disk_to_dev(dm_disk(vol->md));
	char name[40], number[32];
	char *env[] = { name, gen ? number : NULL, NULL };

	if (!device_is_registered(dev))		/* the first table of the device is just being loaded */
		return;
	snprintf(name, sizeof(name), "SNAPDIFF_EVENT=%s", events[type].name);
	snprintf(number, sizeof(number), "SNAPDIFF_GEN=%u", gen);
	kobject_uevent_env(&dev->kobj, KOBJ_CHANGE, env);
}

/**
 * snap_event() - tell everybody that something has happened
 * @gen: generation, 0: none
 * @err: positive errno, 0: none
 * @text: more for a human, may be NULL
 *
 * Context: may sleep; not under a lock that I/O to the primary or the diff needs. Never fails: who has no listener is told nothing.
 */
void snap_event(struct snap_volume *vol, enum snapdiff_event type, u32 gen, int err, const char *text)
{
	if (WARN_ON_ONCE(type >= ARRAY_SIZE(events) || !events[type].name))
		return;
	if (!READ_ONCE(vol->dead))
		snap_volume_rename(vol);
	if (events[type].set)
		atomic_inc(&event_seq);
	event_log(vol, type, gen, err, text);
	snap_netlink_event(vol, type, gen, err, text);
	if (READ_ONCE(vol->dead) || events[type].often)
		return;
	snap_target_event(vol);
	event_uevent(vol, type, gen);
}
