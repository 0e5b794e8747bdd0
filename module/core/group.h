/* SPDX-License-Identifier: GPL-2.0 */
/* Images of commit groups: shared by committing and replay. */
#ifndef SNAPDIFF_CORE_GROUP_H
#define SNAPDIFF_CORE_GROUP_H

#include "internal.h"

#define SD_APPLY_REPLAY		1u	/* mark the blocks of the data as used */
#define SD_APPLY_CATALOG	2u	/* generations and their counts too */

/* Apply the operations of an image: records into @mem, generations into the catalog. */
int sd_group_apply(struct sd_store *s, const void *image, struct sd_mem *mem, u32 mode);
/* The operation at *off (which moves on), or NULL at the end. */
const struct sd_op_header *sd_group_next_op(const void *image, u32 *off);

#endif
