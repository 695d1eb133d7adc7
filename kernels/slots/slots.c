// SPDX-License-Identifier: GPL-2.0
/*
 * Slots for functions that the kernel's list of those that may fail is to have.
 *
 * The kernel adds to that list whatever addresses it finds in this section of a
 * module. Whoever loads the module writes addresses and types into the file
 * first, and cuts the section behind the last one. The first slots say which
 * numbers the types have in this kernel: NULL, ERRNO, ERRNO_NULL, TRUE.
 *
 * Mirrors find_module_sections() of kernel/module/main.c and
 * populate_error_injection_list() of lib/error-inject.c (6.12).
 */
#include <linux/error-injection.h>
#include <linux/module.h>

#define SLOTS 1024

static struct error_injection_entry slots[SLOTS]
	__used __section("_error_injection_whitelist") = {
	{ .etype = EI_ETYPE_NULL },
	{ .etype = EI_ETYPE_ERRNO },
	{ .etype = EI_ETYPE_ERRNO_NULL },
	{ .etype = EI_ETYPE_TRUE },
};

/* It is the kernel's own as far as taints go: it has no code. */
MODULE_INFO(intree, "Y");
MODULE_DESCRIPTION("Slots for functions that may fail");
MODULE_LICENSE("GPL");
