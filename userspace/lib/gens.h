/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What is said about volumes and generations, and done to several of them, here and for those who ask from another machine.
 */
#ifndef SNAP_LIB_GENS_H
#define SNAP_LIB_GENS_H

#include "netlink.h"
#include "output.h"

extern const struct snap_col snap_gen_cols[], snap_vol_cols[];
extern const size_t snap_nr_gen_cols, snap_nr_vol_cols;

/**
 * snap_gen_rows() - a row for each generation, in snap_gen_cols
 * @name: of this volume; NULL: of all
 *
 * Return: 0, -ENODEV no such volume, -errno.
 */
int snap_gen_rows(struct snap_nl *nl, const char *name, struct snap_out *out, struct snap_err *e);
/** snap_vol_rows() - the same for volumes, in snap_vol_cols. */
int snap_vol_rows(struct snap_nl *nl, const char *name, struct snap_out *out, struct snap_err *e);

/**
 * snap_gen_delete() - delete generations and ranges of them
 *
 * All are looked up before the first is deleted: -ENOENT leaves all of them.
 */
int snap_gen_delete(struct snap_nl *nl, const struct snap_ref *refs, int n, struct snap_err *e);

#endif
