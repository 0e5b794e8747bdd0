/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What a backup has pinned and activated, so that the next one can take it back if this one is killed. */
#ifndef SNAPBACKUP_CLAIM_H
#define SNAPBACKUP_CLAIM_H

#include "netlink.h"
#include "util.h"

/* claim_sweep() - take back what backups that were killed have left, of any volume */
void claim_sweep(struct snap_nl *nl);

/**
 * claim_take() - before a generation is pinned and activated
 * @pinned, @activated: who takes it back has to undo that
 *
 * Return: a descriptor for claim_drop(); -EBUSY: another backup of the generation is running; -errno.
 */
int claim_take(const char *volume, uint32_t number, const uint8_t *uuid, bool pinned, bool activated, struct sm_err *e);

/* claim_drop() - everything has been undone */
void claim_drop(int fd, const uint8_t *uuid);

#endif
