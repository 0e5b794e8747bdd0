/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef SNAPMEDIA_VERBS_H
#define SNAPMEDIA_VERBS_H

#include "cmd.h"
#include "repo.h"

extern const struct snap_cmd cmd_init, cmd_list, cmd_show, cmd_verify, cmd_import, cmd_replicate, cmd_client, cmd_du, cmd_export, cmd_reindex, cmd_fsck, cmd_prune, cmd_gc, cmd_lock, cmd_unlock;

/* repo_default() - @path, or $SNAPMEDIA_REPO, or /var/lib/snapmedia */
const char *repo_default(const char *path);

#endif
