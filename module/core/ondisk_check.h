/* SPDX-License-Identifier: GPL-2.0 */
/* Sizes and offsets of everything on disk, asserted at compile time. Included once, by block.c. */
#ifndef SNAPDIFF_CORE_ONDISK_CHECK_H
#define SNAPDIFF_CORE_ONDISK_CHECK_H

#define SD_CHECK_SIZE(type, size) \
	_Static_assert(sizeof(struct type) == (size), "size of struct " #type)
#define SD_CHECK_OFFSET(type, member, off) \
	_Static_assert(offsetof(struct type, member) == (off), "offset of " #member " in struct " #type)

SD_CHECK_SIZE(sd_disk_header, 64);
SD_CHECK_OFFSET(sd_disk_header, uuid, 24);
SD_CHECK_OFFSET(sd_disk_header, nr, 40);
SD_CHECK_OFFSET(sd_disk_super, chunk_size, 100);
SD_CHECK_OFFSET(sd_disk_super, nr_blocks, 104);
SD_CHECK_OFFSET(sd_disk_super, primary_sectors, 144);
SD_CHECK_OFFSET(sd_disk_super, journal_tail, 160);
SD_CHECK_OFFSET(sd_disk_super, fingerprint, 208);
SD_CHECK_OFFSET(sd_disk_super, suspect_gen, 280);
SD_CHECK_OFFSET(sd_disk_super, index, 400);
_Static_assert(sizeof(struct sd_disk_super) <= 4096, "superblock");
SD_CHECK_SIZE(sd_disk_bitmap, 4096);
SD_CHECK_SIZE(sd_disk_leaf, 4096);
SD_CHECK_OFFSET(sd_disk_leaf, width, 104);
SD_CHECK_OFFSET(sd_disk_leaf, row, 112);
SD_CHECK_OFFSET(sd_disk_leaf, end, 4088);
SD_CHECK_SIZE(sd_disk_fence, 24);
SD_CHECK_SIZE(sd_disk_fences, 4096);
SD_CHECK_SIZE(sd_disk_entry, 128);
SD_CHECK_SIZE(sd_disk_catalog, 4096);
SD_CHECK_SIZE(sd_disk_index, 4096);
SD_CHECK_SIZE(sd_disk_gen, SD_CAT_VALUE);
SD_CHECK_SIZE(sd_disk_run, SD_CAT_VALUE);
SD_CHECK_SIZE(sd_disk_seg, SD_CAT_VALUE);
SD_CHECK_SIZE(sd_disk_group_desc, 8);
SD_CHECK_SIZE(sd_disk_journal, 96);
SD_CHECK_SIZE(sd_op_header, 8);
SD_CHECK_SIZE(sd_op_copies, 16);
SD_CHECK_SIZE(sd_op_copy, 12);
SD_CHECK_SIZE(sd_op_gen, 128);
SD_CHECK_SIZE(sd_op_range, 16);
_Static_assert(SD_GROUPS_PER_ENTRY * sizeof(struct sd_disk_group_desc) == SD_CAT_VALUE, "group page");

#endif
