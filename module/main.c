// SPDX-License-Identifier: GPL-2.0
/* Brings the parts up, in the order in which they need each other, and down. */
#include <linux/module.h>
#include "snapdiff.h"

static int __init snapdiff_init(void)
{
	int err;

	snap_crc_init();
	err = snap_virt_init();
	if (err)
		return err;
	err = snap_gen_init();
	if (err)
		goto virt;
	err = snap_netlink_init();
	if (err)
		goto gen;
	err = snap_target_init();
	if (err)
		goto netlink;
	return 0;
netlink:
	snap_netlink_exit();
gen:
	snap_gen_exit();
virt:
	snap_virt_exit();
	return err;
}

static void __exit snapdiff_exit(void)
{
	snap_target_exit();
	snap_netlink_exit();
	snap_gen_exit();
	snap_virt_exit();
	snap_store_exit();
}

module_init(snapdiff_init);
module_exit(snapdiff_exit);

MODULE_DESCRIPTION("Snapshots and change tracking of block devices");
MODULE_AUTHOR("The snapdiff developers");
MODULE_LICENSE("GPL");
MODULE_SOFTDEP("pre: crc32c");
