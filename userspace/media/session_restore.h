/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef SNAPMEDIA_SESSION_RESTORE_H
#define SNAPMEDIA_SESSION_RESTORE_H

#include "session.h"

/**
 * sm_send_image() - the server's answer to RESTORE behind RESTORING: DATA, ZERO, PART frames, and END
 * @parts: the client has SM_FEATURE_PARTS
 * @x: what was asked for: whole blocks or up to the end, ascending, disjoint, inside the image
 *
 * Blocks while the client does not read.
 */
int sm_send_image(struct sm_chan *c, struct sm_image *img, bool parts, const struct sm_extent *x, uint32_t nr, struct sm_err *e);

#endif
