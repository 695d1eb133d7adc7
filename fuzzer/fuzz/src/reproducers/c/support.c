//: support
#define _GNU_SOURCE
#include <dirent.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

#define DEBUGFS "/sys/kernel/debug"
#define ROOT "/mnt/t"

static char **disk;
static int disks;

static void die(const char *what) {
    printf("repro: %s: %s\n", what, strerror(errno));
    exit(2);
}

//: faults
/* A fault: before `step` of `round` the hook `attribute` is told to fail calls below `below`. */
struct fault {
    int round, step;
    const char *attribute; /* folder in debugfs */
    const char *below;     /* only calls with this function among their callers */
    unsigned nth;          /* fails this one of the task's own calls, by /proc/thread-self/fail-nth; or 0 */
    unsigned interval;     /* fails each such call of any task; 0 for none */
    int times;             /* as often as this, all together */
    const char *inject;    /* function that fail_function fails, and what it returns */
    const char *retval;
    const char *what;
};

static int fail_nth, probability[64];
static int fired;
static unsigned long start[64], end[64];
static char inject[64][256];

static void put(const char *path, const char *format, ...) {
    char text[128];
    va_list arguments;
    int file = open(path, O_WRONLY | O_CLOEXEC);

    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    if (file < 0 || write(file, text, strlen(text)) < 0)
        die(path);
    close(file);
}

static void set(const char *attribute, const char *name, const char *format, unsigned long value) {
    char path[256];

    snprintf(path, sizeof path, DEBUGFS "/%s/%s", attribute, name);
    /* What not all of the hooks have. */
    if (access(path, F_OK) == 0)
        put(path, format, value);
}

static long get(const char *attribute, const char *name) {
    char path[256], text[64] = "";
    int file;

    snprintf(path, sizeof path, DEBUGFS "/%s/%s", attribute, name);
    file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0 || read(file, text, sizeof text - 1) < 0)
        die(path);
    close(file);
    return atol(text);
}

/* No call is below the functions of an empty range, so that fail-nth counts none of this hook. */
static void silence(const char *attribute) {
    set(attribute, "probability", "%lu", 0);
    set(attribute, "stacktrace-depth", "%lu", 0);
    set(attribute, "require-start", "%lu", 1);
    set(attribute, "require-end", "%lu", 1);
    set(attribute, "reject-start", "%lu", 0);
    set(attribute, "reject-end", "%lu", 0);
    set(attribute, "verbose", "%lu", 1);
    set(attribute, "task-filter", "N", 0);
    set(attribute, "ignore-gfp-wait", "N", 0);
    set(attribute, "ignore-gfp-highmem", "N", 0);
    set(attribute, "cache-filter", "N", 0);
    set(attribute, "min-order", "%lu", 0);
}

static void silence_all(void) {
    char path[512];
    struct dirent *entry;
    DIR *folder = opendir(DEBUGFS);

    if (!folder)
        die(DEBUGFS " (mount -t debugfs none " DEBUGFS ")");
    while ((entry = readdir(folder))) {
        snprintf(path, sizeof path, DEBUGFS "/%s/probability", entry->d_name);
        if (access(path, F_OK) == 0)
            silence(entry->d_name);
    }
    closedir(folder);
}

/* Finds the addresses of the function `name`, whatever suffix the compiler gave it, and its whole
 * name. */
static const char *look_up(const char *name, unsigned long *from, unsigned long *to) {
    static char whole[256];
    char line[512], symbol[256], type;
    unsigned long address;
    size_t length = strlen(name);
    FILE *file;

    *from = 0;
    *to = -1UL;
    file = fopen("/proc/kallsyms", "re");
    if (!file)
        die("/proc/kallsyms (CONFIG_KALLSYMS)");
    while (fgets(line, sizeof line, file)) {
        if (sscanf(line, "%lx %c %255s", &address, &type, symbol) != 3 || !strchr("tTwW", type))
            continue;
        if (strncmp(symbol, name, length) == 0 && (symbol[length] == 0 || symbol[length] == '.') &&
            !strstr(symbol, ".cold")) {
            *from = address;
            strcpy(whole, symbol);
        }
    }
    rewind(file);
    while (fgets(line, sizeof line, file))
        if (sscanf(line, "%lx", &address) == 1 && address > *from && address < *to)
            *to = address;
    fclose(file);
    if (*from == 0) {
        printf("repro: this kernel has no function %s, or hides its addresses (run as root)\n", name);
        exit(2);
    }
    return whole;
}

static const char *configuration(const char *attribute) {
    if (strcmp(attribute, "failslab") == 0)
        return "CONFIG_FAILSLAB";
    if (strcmp(attribute, "fail_page_alloc") == 0)
        return "CONFIG_FAIL_PAGE_ALLOC";
    if (strcmp(attribute, "fail_make_request") == 0)
        return "CONFIG_FAIL_MAKE_REQUEST";
    return "CONFIG_FAIL_FUNCTION";
}

static void prepare(const struct fault *fault, int index) {
    char path[256];

    snprintf(path, sizeof path, DEBUGFS "/%s/require-start", fault->attribute);
    if (access(path, F_OK) != 0) {
        printf("repro: there is no %s: the kernel needs CONFIG_FAULT_INJECTION_DEBUG_FS, "
               "CONFIG_FAULT_INJECTION_STACKTRACE_FILTER and %s\n", path, configuration(fault->attribute));
        exit(2);
    }
    if (fault->inject)
        strcpy(inject[index], look_up(fault->inject, &start[index], &end[index]));
    look_up(fault->below, &start[index], &end[index]);
    snprintf(path, sizeof path, DEBUGFS "/%s/probability", fault->attribute);
    probability[index] = open(path, O_WRONLY | O_CLOEXEC);
    if (probability[index] < 0)
        die(path);
}

static void make_disks_fail(const char *value) {
    for (int number = 0; number < disks; number++) {
        char path[256];

        snprintf(path, sizeof path, "/sys/class/block/%s/make-it-fail", strrchr(disk[number], '/') + 1);
        put(path, value);
    }
}

static void arm_one(const struct fault *fault, int index) {
    if (fault->inject) {
        char path[256];

        put(DEBUGFS "/fail_function/inject", "%s", inject[index]);
        snprintf(path, sizeof path, DEBUGFS "/fail_function/%s/retval", inject[index]);
        put(path, "%s", fault->retval);
    }
    if (strcmp(fault->attribute, "fail_make_request") == 0)
        make_disks_fail("1");
    set(fault->attribute, "times", "%lu", fault->times);
    set(fault->attribute, "space", "%lu", 0);
    set(fault->attribute, "stacktrace-depth", "%lu", 32);
    set(fault->attribute, "require-start", "0x%lx", start[index]);
    set(fault->attribute, "require-end", "0x%lx", end[index]);
    set(fault->attribute, "interval", "%lu", fault->interval ? fault->interval : 1);
}

static void disarm_one(const struct fault *fault, int index) {
    long left = get(fault->attribute, "times");

    silence(fault->attribute);
    if (fault->inject)
        put(DEBUGFS "/fail_function/inject", "!%s", inject[index]);
    fired += fault->times - left;
    printf("repro: %s: %s\n", fault->what, left == 0 ? "failed" : "DID NOT FAIL: the call was not reached");
}

//: allow faults
/* A function that is not on the kernel's list of those that may fail, and which slot of slots.ko
 * has its type. */
struct allowed {
    const char *function;
    int type;
};

/* Puts functions on that list: loads slots.ko, of this folder, with their addresses in its slots
 * and no slot more. */
static void allow(const struct allowed *functions, int count) {
    static union {
        Elf64_Ehdr header;
        char bytes[4 << 20];
    } module;
    struct { unsigned long address, type; } *slots;
    int file = open("slots.ko", O_RDONLY | O_CLOEXEC);
    ssize_t bytes = read(file, module.bytes, sizeof module.bytes);
    unsigned long types[4], unused;
    Elf64_Shdr *section = (Elf64_Shdr *)(module.bytes + module.header.e_shoff);
    const char *names;

    if (file < 0 || bytes <= 0)
        die("slots.ko (build slots.c: see the head of this file)");
    names = module.bytes + section[module.header.e_shstrndx].sh_offset;
    while (strcmp(names + section->sh_name, "_error_injection_whitelist") != 0)
        section++;
    slots = (void *)(module.bytes + section->sh_offset);
    for (int type = 0; type < 4; type++)
        types[type] = slots[type].type;
    for (int index = 0; index < count; index++) {
        look_up(functions[index].function, &slots[index].address, &unused);
        slots[index].type = types[functions[index].type];
    }
    section->sh_size = count * sizeof *slots;
    if (syscall(SYS_init_module, module.bytes, bytes, "") < 0)
        die("cannot load slots.ko");
    close(file);
}

//: state
static int mounted;
/* The root of the file system while it is frozen, else -1. */
static int frozen = -1;

static int opened(const char *path, int flags) {
    return open(path, flags | O_CLOEXEC, 0644);
}

static long done(long result) {
    return result < 0 ? -errno : result;
}

/* Closes `file` after a call in it that had `result`. */
static long closed(int file, long result) {
    int error = errno;

    if (result < 0) {
        close(file);
        return -error;
    }
    return close(file) < 0 ? -errno : result;
}

static void report(int number, const char *kind, long result) {
    if (result < 0)
        printf("repro: step %d, %s: %s\n", number, kind, strerror(-result));
    else
        printf("repro: step %d, %s: ok, %ld\n", number, kind, result);
}
