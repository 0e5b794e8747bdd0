// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Damages one block of a differential volume, and says which.
 *
 * usage: corrupt list DIFF                       TYPE LEVEL ADDRESS of every block that it refers to
 *        corrupt DIFF TYPE[.LEVEL] HOW SEED      prints the block's address
 *
 * TYPE  super journal journal-body bitmap index catalog fence leaf data       HOW  flip zero noise swap forge
 *
 * Exit status: 0; 3: DIFF has no such block, or no other one to swap it with; 1 anything else. What each word means: tests/include/damage.h.
 */
#include <unistd.h>
#include "damage.h"
#include "filedev.h"

static int fail(const char *what, int err)
{
	fprintf(stderr, "corrupt: %s: %s\n", what, strerror(err < 0 ? -err : err));
	return err == -ENOENT ? 3 : 1;
}

static int number_of(const char *name, size_t len, const char *const *names, int nr)
{
	int i;

	for (i = 0; i < nr; i++)
		if (strlen(names[i]) == len && !strncmp(names[i], name, len))
			return i;
	return -1;
}

static int list(const struct dmg_list *l)
{
	u32 i;

	for (i = 0; i < l->nr; i++)
		printf("%s %u %llu\n", dmg_type_names[l->b[i].type], l->b[i].level, (unsigned long long)l->b[i].addr);
	return 0;
}

static int damage(struct filedev *f, const struct dmg_list *l, char **argv)
{
	size_t len = strcspn(argv[2], ".");
	int type = number_of(argv[2], len, dmg_type_names, DMG_TYPES), how = number_of(argv[3], strlen(argv[3]), dmg_how_names, DMG_HOWS);
	u32 level = argv[2][len] ? strtoul(argv[2] + len + 1, NULL, 10) : 0;
	u64 seed = strtoull(argv[4], NULL, 0);
	const struct dmg_block *b;
	int err;

	if (type < 0 || how < 0 || how == DMG_STALE)
		return fail(type < 0 ? argv[2] : argv[3], EINVAL);
	dmg_dice(&seed, 2);
	b = dmg_pick(l, type, level, false, &seed);
	err = b ? dmg_apply(&f->dev, l, b, how, NULL, &seed) : -ENOENT;
	if (err)
		return fail(argv[2], err);
	printf("%llu\n", (unsigned long long)b->addr);
	return fsync(f->fd) ? 1 : 0;
}

int main(int argc, char **argv)
{
	bool lists = argc == 3 && !strcmp(argv[1], "list");
	struct dmg_list l = { 0 };
	struct filedev f;
	int err;

	if (!lists && argc != 5) {
		fprintf(stderr, "usage: corrupt list DIFF | corrupt DIFF TYPE[.LEVEL] HOW SEED\n");
		return 1;
	}
	err = filedev_open(&f, argv[lists ? 2 : 1], lists, true);
	if (err)
		return fail(argv[lists ? 2 : 1], err);
	err = dmg_scan(&f.dev, &l);
	if (err)
		err = fail("scan", err == -ENOENT ? -EIO : err);
	else
		err = lists ? list(&l) : damage(&f, &l, argv);
	free(l.b);
	filedev_close(&f);
	return err;
}
