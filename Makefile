# SPDX-License-Identifier: GPL-2.0-or-later
#
# make               all programs
# make module        the module, for the running kernel
# make module KERNEL=uml-6.1|uml-6.12-debug|debian-6.1|debian-6.12
# make check         every test; make unit, make sim, make fuzz: parts of it
# make demo          the tour; make bench: the measurements
# make bench-store   what the store costs as it grows (RECORDS=100000000 takes a while)
# make check-kcsan   the stress test in a kernel that looks for data races (its first build takes an hour)
# make bench-stall   the longest pause of writers while space is reclaimed (MIB=8192 ROUNDS=3)
# make bench-media   backups of an image beside borg, restic and zstd in a pipe (MIB=2048; scripts/setup --bench)
# make kernels       build or fetch all guest kernels
# make install       DESTDIR, PREFIX; the module goes to DKMS's source directory
#
# Sources are found by wildcard: a new file needs no edit here.

VERSION := 0.1.0
B := build
PREFIX ?= /usr/local
DESTDIR ?=
CC ?= gcc
PKG_CONFIG ?= pkg-config

.DEFAULT_GOAL := all

# V=1 shows the commands.
Q := $(if $(V),,@)
say := @$(if $(V),:,echo) " "

#
# Flags
#

PKGS := libnl-3.0 libnl-genl-3.0 blkid devmapper libcrypto libssl libzstd \
	jansson liburing libseccomp
PKG_CFLAGS := $(shell $(PKG_CONFIG) --cflags $(PKGS) 2>/dev/null)
LIBS := -Wl,--as-needed $(shell $(PKG_CONFIG) --libs $(PKGS) 2>/dev/null) -lpthread

WARN := -Wall -Wextra -Werror -Wstrict-prototypes -Wmissing-prototypes \
	-Wno-unused-parameter -Wno-sign-compare -Wno-missing-field-initializers
BASE := -std=gnu11 -D_GNU_SOURCE -D_FILE_OFFSET_BITS=64 \
	-DSNAPDIFF_VERSION='"$(VERSION)"' $(WARN) $(PKG_CFLAGS) -g -pthread
HARDEN := -fstack-protector-strong -fstack-clash-protection \
	-D_FORTIFY_SOURCE=2 -fPIE
ALL_CFLAGS := -O2 $(BASE) $(HARDEN) $(CFLAGS)
ALL_LDFLAGS := -pie -Wl,-z,relro,-z,now $(LDFLAGS)
SAN_CFLAGS := -O1 $(BASE) -fsanitize=address,undefined \
	-fno-sanitize-recover=undefined -fno-omit-frame-pointer $(CFLAGS)

USER_INC := -Imodule/uapi -Iuserspace/lib -Iuserspace/media
CORE_INC := -Imodule/core -Iuserspace/shim -Imodule/uapi

#
# What there is
#

PROGRAMS := snapctl snapmeta snapbackup snaprestore snapagentd snapmediad snapmedia
programs := $(foreach p,$(PROGRAMS),$(if $(shell grep -l '^int main\>' userspace/$(p)/*.c 2>/dev/null),$(p)))
CORE_USERS := snapctl snapmeta
MEDIA_USERS := snapbackup snaprestore snapmediad snapmedia snapagentd snapctl

core_src := $(wildcard module/core/*.c) $(wildcard userspace/shim/*.c)
lib_src := $(wildcard userspace/lib/*.c)
media_src := $(wildcard userspace/media/*.c)
# what tests can call of snapmeta: everything but its main()
meta_src := $(filter-out %/main.c,$(wildcard userspace/snapmeta/*.c))
# and of snapagentd: what decides, and the files of jobs and schedule
agent_src := $(addprefix userspace/snapagentd/,config.c schedule.c job.c paths.c runner.c child.c place.c state.c)
# and of snapbackup: what is to be sent
backup_src := $(addprefix userspace/snapbackup/,plan.c source_image.c pipeline.c reader.c)
unit_src := $(wildcard tests/unit/test_*.c)
unit_help_src := $(filter-out $(unit_src),$(wildcard tests/unit/*.c))
sim_src := $(wildcard tests/sim/*.c)
tool_src := $(wildcard tests/tools/*.c)
bench_store_src := $(wildcard tests/bench/store/*.c)
module_files := $(wildcard module/*.[ch] module/core/*.[ch] \
	module/uapi/linux/*.h) Kbuild

obj = $(patsubst %.c,$(B)/obj/%.o,$(1))
san = $(patsubst %.c,$(B)/san/%.o,$(1))

nbdkit_src := $(wildcard userspace/nbdkit/*.c)
nbdkit_plugin := $(if $(wildcard /usr/include/nbdkit-plugin.h),$(B)/nbdkit-snapmedia-plugin.so)
bins := $(programs:%=$(B)/bin/%)
tools := $(patsubst tests/tools/%.c,$(B)/tests/tools/%,$(tool_src))
units := $(patsubst tests/unit/%.c,$(B)/tests/unit/%,$(unit_src))

.PHONY: bench-stall bench-media check-kcsan all programs tools unit-programs unit sim fuzz fuzz-programs fuzz-seeds module module-locked kernels check bench bench-store \
	demo lint install install-module clean checkpatch
all: programs tools
programs: $(bins) $(nbdkit_plugin)
tools: $(tools)
unit-programs: $(units)

# Core headers are seen only by what is allowed to know the core; the others have
# the shim's offline.h for what they do to a diff that is not attached.
$(B)/obj/module/core/%.o $(B)/obj/userspace/shim/%.o: INC = $(CORE_INC)
$(B)/san/module/core/%.o $(B)/san/userspace/shim/%.o: INC = $(CORE_INC)
$(B)/obj/userspace/snapmeta/%.o $(B)/san/userspace/snapmeta/%.o: INC = $(CORE_INC) $(USER_INC)
$(B)/obj/userspace/lib/%.o $(B)/obj/userspace/media/%.o: INC = $(USER_INC)
$(B)/san/userspace/lib/%.o $(B)/san/userspace/media/%.o: INC = $(USER_INC)
$(B)/obj/tests/%.o: INC = $(CORE_INC) $(USER_INC) -Itests/include
$(B)/san/tests/%.o: INC = $(CORE_INC) $(USER_INC) -Itests/include -Iuserspace/snapmeta -Iuserspace/snapagentd -Iuserspace/snapbackup
INC = $(USER_INC)

$(B)/obj/%.o: %.c Makefile
	@mkdir -p $(@D)
	$(say) CC $@
	$(Q)$(CC) $(ALL_CFLAGS) $(INC) -I$(<D) -MMD -MP -c -o $@ $<

$(B)/san/%.o: %.c Makefile
	@mkdir -p $(@D)
	$(say) CC $@
	$(Q)$(CC) $(SAN_CFLAGS) $(INC) -I$(<D) -MMD -MP -c -o $@ $<

define archive
@mkdir -p $(@D)
@rm -f $@
$(say) AR $@
$(Q)$(AR) rcs $@ $(filter %.o,$^)
endef

$(B)/libsnapcore.a: $(call obj,$(core_src)) ; $(archive)
$(B)/libsnapdiff.a: $(call obj,$(lib_src)) ; $(archive)
$(B)/libsnapmedia.a: $(call obj,$(media_src)) ; $(archive)
$(B)/san/libsnapmeta.a: $(call san,$(meta_src)) ; $(archive)
$(B)/san/libsnapagent.a: $(call san,$(agent_src) $(backup_src)) ; $(archive)
$(B)/san/libsnapcore.a: $(call san,$(core_src)) ; $(archive)
$(B)/san/libsnapdiff.a: $(call san,$(lib_src)) ; $(archive)
$(B)/san/libsnapmedia.a: $(call san,$(media_src)) ; $(archive)

# Programs appear by a rename: somebody may be running the old one. Libraries stand
# in link order; those without a source do not exist.
lib_core := $(if $(core_src),$(B)/libsnapcore.a)
lib_base := $(if $(lib_src),$(B)/libsnapdiff.a)
lib_media := $(if $(media_src),$(B)/libsnapmedia.a)
san_libs := $(B)/san/libsnapmeta.a $(B)/san/libsnapagent.a $(if $(media_src),$(B)/san/libsnapmedia.a) \
	    $(if $(lib_src),$(B)/san/libsnapdiff.a) \
	    $(if $(core_src),$(B)/san/libsnapcore.a)

define program
$(B)/bin/$(1): $(call obj,$(wildcard userspace/$(1)/*.c)) \
	$(if $(filter $(1),$(MEDIA_USERS)),$(lib_media)) $(lib_base) \
	$(if $(filter snapmeta snapctl,$(1)),$(lib_core))
	@mkdir -p $$(@D)
	$(say) LD $$@
	$(Q)$(CC) $(ALL_LDFLAGS) -o $$@.new $$^ $(LIBS) && mv -f $$@.new $$@
endef
$(foreach p,$(programs),$(eval $(call program,$(p))))

# The nbdkit plugin, where nbdkit's header is. Position-independent, with nothing visible but its entry.
pic = $(patsubst %.c,$(B)/pic/%.o,$(1))
$(B)/pic/%.o: %.c Makefile
	@mkdir -p $(@D)
	$(say) CC $@
	$(Q)$(CC) $(filter-out -fPIE,$(ALL_CFLAGS)) -fPIC -fvisibility=hidden $(USER_INC) -I$(<D) -MMD -MP -c -o $@ $<

# agent_job.c is what clients print of an agent's jobs. Nothing of ours may be missing: nbdkit would tell only when it loads the plugin.
$(B)/nbdkit-snapmedia-plugin.so: $(call pic,$(nbdkit_src) $(filter-out %/agent_job.c,$(media_src)))
	$(say) LD $@
	$(Q)$(CC) -shared -Wl,-z,relro,-z,now $(LDFLAGS) -o $@.new $^ $(LIBS)
	$(Q)! nm -D --undefined-only $@.new | grep -E ' (sm|snap|sd)_'
	$(Q)mv -f $@.new $@

$(tools): $(B)/tests/tools/%: $(B)/obj/tests/tools/%.o $(lib_media) $(lib_base) $(lib_core)
	@mkdir -p $(@D)
	$(say) LD $@
	$(Q)$(CC) $(ALL_LDFLAGS) -o $@.new $^ $(LIBS) -lm && mv -f $@.new $@

$(units): $(B)/tests/unit/%: $(B)/san/tests/unit/%.o $(call san,$(unit_help_src)) $(san_libs)
	@mkdir -p $(@D)
	$(say) LD $@
	$(Q)$(CC) -fsanitize=address,undefined $(LDFLAGS) -o $@.new $^ $(LIBS) -lcmocka -lm && mv -f $@.new $@

# The simulator has a core of its own, in which bugs can be planted.
sim_obj := $(patsubst %.c,$(B)/plant/%.o,$(sim_src) $(core_src))
$(B)/plant/%.o: %.c Makefile
	@mkdir -p $(@D)
	$(say) CC $@
	$(Q)$(CC) $(ALL_CFLAGS) -DSD_PLANT $(CORE_INC) -I$(<D) -MMD -MP -c -o $@ $<

$(B)/tests/sim/sim: $(sim_obj)
	@mkdir -p $(@D)
	$(say) LD $@
	$(Q)$(CC) $(ALL_LDFLAGS) -o $@.new $^ $(LIBS) -lm && mv -f $@.new $@

# It counts what the core allocates: the linker sends the calls to it.
$(B)/tests/bench/store: $(call obj,$(bench_store_src)) $(lib_core)
	@mkdir -p $(@D)
	$(say) LD $@
	$(Q)$(CC) $(ALL_LDFLAGS) -Wl,--wrap=malloc,--wrap=posix_memalign,--wrap=free -o $@.new $^ -lm && mv -f $@.new $@

-include $(shell find $(B)/obj $(B)/san $(B)/pic $(B)/plant $(B)/fuzz -name '*.d' 2>/dev/null)
.SECONDARY:

#
# Tests
#

unit: $(units)
	@tests/run --unit

SECONDS ?= 20
sim: $(if $(sim_src),$(B)/tests/sim/sim)
	$(if $(sim_src),$(B)/tests/sim/sim --seconds $(SECONDS),@echo "no simulator"; exit 1)

#
# Fuzzing: clang's libFuzzer over the core, the netlink client and the media parsers.
# make fuzz SECONDS=60 (each target); make fuzz-seeds after a change of a format
#

FUZZ_CC ?= clang
FUZZ_CFLAGS := -O1 $(filter-out -Werror,$(BASE)) -Wno-address-of-packed-member -Wno-gnu-variable-sized-type-not-at-end \
	-fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=undefined \
	-fno-omit-frame-pointer -Itests/fuzz
fuzz_targets := $(patsubst tests/fuzz/fuzz_%.c,$(B)/fuzz/fuzz_%,$(wildcard tests/fuzz/fuzz_*.c))
fuzz_lib := $(patsubst %.c,$(B)/fuzz/obj/%.o,$(core_src) $(lib_src) $(media_src) $(meta_src) $(agent_src))

$(B)/fuzz/obj/%.o: %.c Makefile
	@mkdir -p $(@D)
	$(say) CC $@
	$(Q)$(FUZZ_CC) $(FUZZ_CFLAGS) $(CORE_INC) $(USER_INC) -Iuserspace/snapmeta -Iuserspace/snapagentd -I$(<D) -MMD -MP -c -o $@ $<

$(B)/fuzz/lib.a: $(fuzz_lib) ; $(archive)

$(B)/fuzz/fuzz_open $(B)/fuzz/fuzz_read $(B)/fuzz/fuzz_repair: $(B)/fuzz/obj/tests/fuzz/image_mutate.o
$(B)/fuzz/fuzz_netlink: FUZZ_LDFLAGS = -Wl,--wrap=nl_recv,--wrap=nl_send_auto,--wrap=genl_connect
$(fuzz_targets): $(B)/fuzz/%: $(B)/fuzz/obj/tests/fuzz/%.o $(B)/fuzz/lib.a
	$(say) LD $@
	$(Q)$(FUZZ_CC) -fsanitize=fuzzer,address,undefined $(FUZZ_LDFLAGS) \
		-o $@.new $(filter %.o,$^) $(B)/fuzz/lib.a $(LIBS) -lm && mv -f $@.new $@

fuzz-programs: $(fuzz_targets)
fuzz: fuzz-programs
	@FUZZ_SECONDS=$(SECONDS) tests/e2e/test_fuzz.sh

$(B)/tests/mkseed: $(B)/san/tests/fuzz/mkseed.o $(san_libs)
	@mkdir -p $(@D)
	$(Q)$(CC) -fsanitize=address,undefined $(LDFLAGS) -o $@ $^ $(LIBS) -lcmocka -lm
fuzz-seeds: $(B)/tests/mkseed
	@mkdir -p tests/fuzz/corpus
	$(B)/tests/mkseed tests/fuzz/corpus

lint:
	@scripts/check-includes
	@scripts/check-style

check:
	@scripts/setup
	@$(MAKE) --no-print-directory all unit-programs $(if $(sim_src),$(B)/tests/sim/sim)
	@tests/run

demo:
	@scripts/setup
	@$(MAKE) --no-print-directory all
	@scripts/demo

bench: all
	@scripts/bench

RECORDS ?= 2000000
bench-store: $(B)/tests/bench/store
	@mkdir -p $(B)/bench
	@$(B)/tests/bench/store --records $(RECORDS) --dir $(B)/bench --json $(B)/bench/store.json $(SECTIONS)

# Backups beside borg, restic and a pipe; alone on the machine.
MIB_MEDIA = $(or $(MIB),2048)
bench-media: programs
	@scripts/setup --bench
	@tests/bench/media.py --mib $(MIB_MEDIA) $(MEDIA_ARGS)

# Data races, as far as one stress run shows them: a kernel of its own, built once and cached; not part of "make check".
check-kcsan: all
	@tests/vm/guest --kernel kcsan-6.12 --smp 4 --timeout 1800 -- env STRESS_SECONDS=$(or $(STRESS_SECONDS),60) tests/selftests/snapdiff/test_stress.sh

# The longest pause of writers while space is reclaimed; alone on the machine.
bench-stall: all
	@tests/vm/guest --kernel $(or $(KERNEL),uml-6.1) --mem 3G --timeout 1200 -- env MIB=$(MIB) ROUNDS=$(ROUNDS) tests/bench/stall.sh

kernels:
	@tests/vm/kernel --all

checkpatch:
	@scripts/checkpatch

#
# The module. For a guest kernel it is built in a directory of its own, so that
# one source tree serves several kernels at once.
#

ifeq ($(KERNEL),)
KVER ?= $(shell uname -r)
module:
	$(MAKE) -C /lib/modules/$(KVER)/build M=$(CURDIR) modules
else
# KO_OUT: where to copy the result, still under the lock.
MB := $(CURDIR)/$(B)/module/$(KERNEL)
module:
	@mkdir -p $(MB)/module
	@flock $(B)/module/.lock-$(KERNEL) $(MAKE) --no-print-directory module-locked

# .stamp is as old as the sources that were taken: tests/vm/guest need not ask make.
module-locked:
	@set -e; k=$(KDIR); [ -n "$$k" ] || k=$$(tests/vm/kernel $(KERNEL)); \
	echo "$$k" >$(MB)/.stamp.new; \
	rsync -a --delete --include='*/' --include='*.[ch]' --filter='P *.o' \
		--filter='P .*.cmd' --exclude='*' module/ $(MB)/module/; \
	rsync -a Kbuild $(MB)/Kbuild; \
	$(MAKE) -C $$k/build M=$(MB) $$(cat $$k/kmake) KCFLAGS=-Werror modules; \
	mv $(MB)/.stamp.new $(MB)/.stamp
	@$(if $(KO_OUT),cp $(MB)/snapdiff.ko $(KO_OUT))
endif

#
# Installation
#

MODSRC := $(DESTDIR)/usr/src/snapdiff-$(VERSION)

install: all install-module
	install -d $(DESTDIR)$(PREFIX)/sbin
	$(if $(bins),install -m 755 $(bins) $(DESTDIR)$(PREFIX)/sbin)
	$(if $(nbdkit_plugin),install -d $(DESTDIR)$(PREFIX)/lib/snapdiff && \
		install -m 644 $(nbdkit_plugin) $(DESTDIR)$(PREFIX)/lib/snapdiff)
	@for s in 1 5 7 8; do \
		set -- userspace/man/*.$$s; [ -e "$$1" ] || continue; \
		install -d $(DESTDIR)$(PREFIX)/share/man/man$$s; \
		install -m 644 "$$@" $(DESTDIR)$(PREFIX)/share/man/man$$s; \
	done
	$(call install_data,userspace/completion/*,$(PREFIX)/share/bash-completion/completions)
	$(call install_data,userspace/udev/*.rules,/usr/lib/udev/rules.d)
	install -d $(DESTDIR)/usr/lib/systemd/system-generators
	sed 's,@SBINDIR@,$(PREFIX)/sbin,' userspace/systemd/snapdiff-generator >$(DESTDIR)/usr/lib/systemd/system-generators/snapdiff-generator
	chmod 755 $(DESTDIR)/usr/lib/systemd/system-generators/snapdiff-generator
	$(call install_data,userspace/systemd/*.service userspace/systemd/*.socket userspace/systemd/*.timer,/usr/lib/systemd/system)

# Files and the directory for them; nothing where there are none.
install_data = $(if $(wildcard $(1)),install -d $(DESTDIR)$(2) && \
	install -m 644 $(wildcard $(1)) $(DESTDIR)$(2))

install-module:
	install -d $(MODSRC)/module/core $(MODSRC)/module/uapi/linux
	install -m 644 Kbuild dkms.conf COPYING $(MODSRC)
	install -m 644 $(wildcard module/*.[ch]) $(MODSRC)/module
	$(if $(wildcard module/core/*.[ch]),install -m 644 $(wildcard module/core/*.[ch]) $(MODSRC)/module/core)
	$(if $(wildcard module/uapi/linux/*.h),install -m 644 $(wildcard module/uapi/linux/*.h) $(MODSRC)/module/uapi/linux)

clean:
	rm -rf $(B)
	rm -f *.o *.ko *.mod *.mod.c .*.cmd Module.symvers modules.order
	find module -name '*.o' -delete -o -name '.*.cmd' -delete
