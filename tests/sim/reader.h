/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A second reader of the format, see reader.c. */
#ifndef SIM_READER_H
#define SIM_READER_H

struct reading;
struct simdev;
struct model;

/* *seq: of the last group that counts */
struct reading *reader_read(const struct simdev *d, u64 *seq, bool *failed);
void reader_compare(const struct reading *r, const struct model *m);
void reader_free(struct reading *r);

#endif
