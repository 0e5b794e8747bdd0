/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef SNAPAGENTD_CHILD_H
#define SNAPAGENTD_CHILD_H

#include "job.h"
#include "place.h"

/* child_program() - which one does the job */
const char *child_program(const struct job *j);
/**
 * child_exec() - become it, without a shell and with no other descriptors
 * @place: of a restore
 * @out, @err: its stdout (the receipt) and stderr (progress, words)
 */
void child_exec(const struct job *j, const struct config_dest *d, const struct place *place, int out, int err) __attribute__((noreturn));

#endif
