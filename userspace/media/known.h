/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The client's side of identity: our key, and the pins of the media servers that we know.
 *
 *	DIR/client.key		our private key, 0600; made by "snapbackup enroll"
 *	DIR/known_servers	a line for each: HOST PORT sha256:HEX
 *
 * DIR is $SNAPDIFF_CONFIG_DIR, or /etc/snapdiff.
 */
#ifndef SNAPMEDIA_KNOWN_H
#define SNAPMEDIA_KNOWN_H

#include "tls.h"

/* sm_known_key() - our key. @make: if there is none yet, make it (and DIR). Return: as sm_key_load() */
int sm_known_key(bool make, struct sm_key **k, struct sm_err *e);

/* sm_known_pin() - the pin of a server. Host and port as the user writes them. Return: 0, -ENOENT not known, -EUCLEAN, -errno. */
int sm_known_pin(const char *host, const char *port, uint8_t pin[SM_DIGEST], struct sm_err *e);

/* sm_known_add() - note a server's pin, or replace the one noted; durable */
int sm_known_add(const char *host, const char *port, const uint8_t pin[SM_DIGEST], struct sm_err *e);

#endif
