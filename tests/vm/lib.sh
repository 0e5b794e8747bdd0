# SPDX-License-Identifier: GPL-2.0-or-later
#
# Parts of tests/vm/guest: the two ways to start a guest, and what its console
# may not say. Sourced; uses the caller's variables ($kdir, $ctl, $mem, $smp,
# $files, $repo, $here) and leaves the command to run in the array $run.
# shellcheck shell=bash disable=SC2154,SC2034

rig_die()
{
	echo "guest: $*" >&2
	exit 125
}

# Memory-backed if there is room (a container's /dev/shm may be 64 MiB).
memory_dir()
{
	local free

	free=$(df --output=avail -k /dev/shm 2>/dev/null | tail -n 1)
	if [ -w /dev/shm ] && [ "${free:-0}" -gt 3000000 ]; then
		echo /dev/shm
	else
		echo "${TMPDIR:-/tmp}"
	fi
}

# What runners that were killed with SIGKILL left behind.
remove_leftovers()
{
	local d g

	for d in "$(memory_dir)"/snapdiff-guest-*; do
		[ -s "$d/runner" ] && ! kill -0 "$(cat "$d/runner")" 2>/dev/null ||
			continue
		g=$(cat "$d/group" 2>/dev/null)
		# Numbers are used again: it has to be a guest with this directory.
		[ -n "$g" ] && pgrep -g "$g" -f "$d" >/dev/null &&
			kill -KILL -- "-$g"
		rm -rf "$d"
	done
}

# The module was built for this kernel from the sources as they are: take it.
module_is_fresh()
{
	local dir=$repo/build/module/$kernel

	[ "$(cat "$dir/.stamp" 2>/dev/null)" = "$kdir" ] &&
		[ -z "$(find "$repo/module" "$repo/Kbuild" -newer "$dir/.stamp" \
			-print -quit)" ] &&
		flock "$repo/build/module/.lock-$kernel" cp "$dir/snapdiff.ko" "$ko"
}

# later_than START SECONDS, both with fractions.
later_than()
{
	awk -v s="$1" -v d="$2" -v n="$EPOCHREALTIME" 'BEGIN { exit !(n >= s + d) }'
}

#
# User-Mode Linux: the host's root by hostfs, disks are ubd
#
# The console is a file of the host: /dev/console and the kernel's messages go
# to $ctl/console, COMMAND's output to $ctl/output (as /dev/tty1), both without
# any buffer inside the guest that a crash could lose.
#
uml_command()
{
	local n=0 f

	run=(env "TMPDIR=$(memory_dir)" "HOME=$ctl"
	     "$kdir/linux" "mem=$mem" root=hostfs rootfstype=hostfs rootflags=/ ro
	     "init=$here/init" "SDVM=$ctl" umid=guest "uml_dir=$ctl/uml/"
	     con=null con0=null,fd:1 con1=null,fd:8
	     loglevel=7 random.trust_bootloader=on random.trust_cpu=on oops=panic panic=1)
	for f in "${files[@]+"${files[@]}"}"; do
		run+=("ubd$n=$f")
		n=$((n + 1))
	done
	mkdir -p "$ctl/uml"
	exec 8>>"$ctl/output"
}

#
# QEMU: a stock kernel, the host's root by 9p, disks are virtio-blk
#

# A boot that proves that KVM works here: some machines have a /dev/kvm that
# hangs in early boot. The verdict is kept for this host kernel and QEMU.
kvm_works()
{
	local verdict key

	[ -w /dev/kvm ] || return 1
	key=$( (uname -rv; qemu-system-x86_64 --version; cat /proc/cpuinfo |
		grep -m1 'model name') | sha256sum | cut -c1-12)
	verdict=$(dirname "$kdir")/kvm-$key
	if [ ! -s "$verdict" ]; then
		if timeout -k 1 20 qemu-system-x86_64 -accel kvm -cpu host -m 512M \
			-nodefaults -no-user-config -display none -no-reboot \
			-kernel "$kdir/vmlinuz" -initrd "$1" -serial stdio \
			-append "console=ttyS0 quiet panic=-1 SDPROBE=1" \
			</dev/null 2>/dev/null | grep -q 'probe: alive'; then
			echo yes >"$verdict"
		else
			echo no >"$verdict"
		fi
	fi
	[ "$(cat "$verdict")" = yes ]
}

# A small initramfs: busybox and the modules that mount the 9p root.
make_initramfs()
{
	local out=$1 rel tmp m f
	local wanted="virtio_pci virtio_blk 9pnet_virtio 9p"

	rel=$(cat "$kdir/release")
	tmp=$(mktemp -d)
	mkdir -p "$tmp"/{bin,dev,proc,sys,new,lib}
	cp /bin/busybox "$tmp/bin/busybox"
	cp "$here/initramfs-init" "$tmp/init"
	chmod 755 "$tmp/init"
	for m in $wanted; do
		# builtin is no error: it prints nothing that starts with insmod
		/sbin/modprobe -d "$kdir" -S "$rel" --show-depends "$m"
	done | awk '$1 == "insmod" && !seen[$2]++ { print $2 }' >"$tmp/list"
	: >"$tmp/modules"
	while read -r f; do
		m=$(basename "$f")
		case "$f" in
		*.xz) m=${m%.xz}; xz -dc "$f" >"$tmp/lib/$m" ;;
		*) cp "$f" "$tmp/lib/" ;;
		esac
		echo "$m" >>"$tmp/modules"
	done <"$tmp/list"
	rm "$tmp/list"
	(cd "$tmp" && find . | cpio --quiet -o -H newc) | gzip -1 >"$out.$$" &&
		mv "$out.$$" "$out"
	rm -rf "$tmp"
	[ -s "$out" ]
}

qemu_command()
{
	local n=0 f initrd accel

	initrd=$kdir/initramfs-$(cat "$here/initramfs-init" "$here/lib.sh" |
		sha256sum | cut -c1-12).gz
	[ -s "$initrd" ] || make_initramfs "$initrd" || rig_die "initramfs"
	if kvm_works "$initrd"; then
		accel=(-accel kvm -cpu host)
	else
		accel=(-accel tcg,thread=multi -cpu max)
	fi
	run=(qemu-system-x86_64 -M q35 "${accel[@]}" -smp "$smp" -m "$mem"
	     -nodefaults -no-user-config -display none -no-reboot
	     -kernel "$kdir/vmlinuz" -initrd "$initrd" -serial stdio
	     -device virtio-rng-pci
	     -append "console=ttyS0 loglevel=5 panic=-1 oops=panic mitigations=off audit=0 apparmor=0 watchdog_thresh=60 rcupdate.rcu_cpu_stall_timeout=120 SDVM=9p")
	add_share root / on
	add_share ctl "$ctl" off
	add_share scratch "$scratch" off
	for f in "${files[@]+"${files[@]}"}"; do
		run+=(-drive "file=$f,format=raw,if=none,id=disk$n,cache=unsafe,discard=unmap,detect-zeroes=off"
		      -device "virtio-blk-pci,drive=disk$n,serial=disk$n")
		n=$((n + 1))
	done
}

# add_share TAG PATH READONLY
add_share()
{
	run+=(-fsdev "local,id=$1,path=$2,security_model=none,readonly=$3,multidevs=remap"
	      -device "virtio-9p-pci,fsdev=$1,mount_tag=$1")
}

#
# The console
#

complaint_re='BUG: |BUG at |kernel BUG|WARNING: |Oops|possible circular locking|inconsistent lock state|suspicious RCU|KASAN: |KCSAN: data-race|KCSAN: assert|UBSAN: |unreferenced object|blocked for more than|general protection|Call Trace|Kernel panic|rcu_sched self-detected|detected stalls|bad unlock balance|held lock freed|lock held when returning|possible recursive locking|sleeping function called|list_(add|del) corruption|ODEBUG|refcount_t'

# console_complaints FILE ALLOW: line numbers of what is a complaint. What follows
# the rig's own dump of the tasks before the time limit is not.
console_complaints()
{
	sed '/rig: time limit is near/,$d' "$1" | grep -nE "$complaint_re" |
		if [ -n "$2" ]; then grep -vE "$2"; else cat; fi |
		cut -d: -f1 | head -n 50
}

# console_context FILE NUMBERS: the first complaint and the lines around it.
console_context()
{
	local first=${2%%$'\n'*}

	sed -n "$((first > 3 ? first - 3 : 1)),$((first + 45))p" "$1"
}
