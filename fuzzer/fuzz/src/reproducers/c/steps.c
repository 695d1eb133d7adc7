//: mount
static long mount_disk(const char *device, const char *type, unsigned long flags, const char *options) {
    long result = done(mount(device, ROOT, type, flags, options));

    mounted |= result == 0;
    return result;
}

//: umount
static long unmount(void) {
    long result = frozen >= 0 ? -EBUSY : done(umount2(ROOT, 0));

    if (result == 0)
        mounted = 0;
    return result;
}

//: remount
static long remount(unsigned long flags, const char *options) {
    return done(mount(NULL, ROOT, NULL, MS_REMOUNT | flags, options));
}

//: create
static long create(const char *path) {
    int file = opened(path, O_WRONLY | O_CREAT | O_EXCL);

    return file < 0 ? -errno : closed(file, 0);
}

//: pattern
static unsigned char buffer[65536] __attribute__((aligned(4096)));

/* The byte that a step writes at offset n is n + shift modulo 251; each step has its own shift. */
static void pattern(unsigned char *to, long long offset, size_t bytes, int shift) {
    for (size_t index = 0; index < bytes; index++)
        to[index] = (offset + index + shift) % 251;
}

//: write-from pattern
/* Writes the pattern from `memory`, in one call as much as that holds. */
static long write_from(unsigned char *memory, size_t most, const char *path, long long offset, long long length,
                       int flags, int shift) {
    long long at = offset;
    int file = opened(path, O_WRONLY | flags);

    if (file < 0)
        return -errno;
    while (at < offset + length) {
        size_t bytes = offset + length - at < (long long)most ? offset + length - at : most;
        ssize_t written;

        pattern(memory, at, bytes, shift);
        written = pwrite(file, memory, bytes, at);
        if (written < 0)
            return closed(file, -1);
        if (written == 0)
            break;
        at += written;
    }
    return closed(file, at - offset);
}

//: write write-from
static long write_file(const char *path, long long offset, long long length, int flags, int shift) {
    return write_from(buffer, sizeof buffer, path, offset, length, flags, shift);
}

//: write-long write-from
/* A direct write is one call of up to 8 MiB. The pages of its memory do not follow each other, as
 * where a machine has run for long: so a page is an entry of a request, and a request has 256. */
static long write_long(const char *path, long long offset, long long length, int flags, int shift) {
    static unsigned char memory[8 << 20] __attribute__((aligned(4096)));

    for (size_t first = 0; first <= 4096; first += 4096)
        for (size_t page = first; page < sizeof memory; page += 8192)
            memory[page] = 1;
    return write_from(memory, sizeof memory, path, offset, length, flags, shift);
}

//: mmap-write pattern
static long mmap_write(const char *path, long long offset, long long length, int shift) {
    long long first = offset % 4096, start_of = offset - first, total = first + length, at = first;
    int file = opened(path, O_RDWR), data = memfd_create("pattern", MFD_CLOEXEC);
    long result = 0;
    char *memory;

    if (file < 0)
        return -errno;
    /* As in a process that has locked its memory: mlockall(MCL_FUTURE). */
    memory = mmap(NULL, total, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, file, start_of);
    if (memory == MAP_FAILED)
        return closed(file, -1);
    while (at < total && result == 0) {
        size_t bytes = total - at < (long long)sizeof buffer ? total - at : sizeof buffer;

        pattern(buffer, start_of + at, bytes, shift);
        if (pwrite(data, buffer, bytes, 0) < 0 || pread(data, memory + at, bytes, 0) < 0)
            result = -errno;
        at += bytes;
    }
    if (munmap(memory, total) < 0 && result == 0)
        result = -errno;
    close(data);
    if (result < 0) {
        close(file);
        return result;
    }
    return closed(file, length);
}

//: read pattern
static long read_file(const char *path) {
    int file = opened(path, O_RDONLY);
    long total = 0, some;

    if (file < 0)
        return -errno;
    while ((some = read(file, buffer, sizeof buffer)) > 0)
        total += some;
    return closed(file, some < 0 ? some : total);
}

//: fsync
static long flush_file(const char *path) {
    int file = opened(path, O_RDONLY);

    return file < 0 ? -errno : closed(file, fsync(file));
}

//: sync
static long flush_all(void) {
    int root = opened(ROOT, O_RDONLY | O_DIRECTORY);

    return root < 0 ? -errno : closed(root, syncfs(root));
}

//: readdir pattern
static long list(const char *path) {
    int folder = opened(path, O_RDONLY | O_DIRECTORY);
    long some, names = 0;

    if (folder < 0)
        return -errno;
    while ((some = syscall(SYS_getdents64, folder, buffer, sizeof buffer)) > 0)
        for (long at = 0; at < some; names++)
            at += *(unsigned short *)(buffer + at + 16);
    return closed(folder, some < 0 ? some : names);
}

//: request
/* Makes a request of the file system, or of the file or directory `path`. */
static long request(const char *path, int flags, unsigned long number, void *argument) {
    int file = opened(path, flags);
    long result;

    if (file < 0)
        return -errno;
    result = ioctl(file, number, argument);
    /* Positive is a reason of btrfs's own. */
    if (result > 0) {
        close(file);
        return -EINVAL;
    }
    return closed(file, result);
}

//: freeze
/* Keeps the root open: one that shuts down meanwhile lets nobody open it. */
static long freeze(void) {
    int root = opened(ROOT, O_RDONLY | O_DIRECTORY), unused = 0;

    if (root < 0)
        return -errno;
    if (ioctl(root, _IOWR('X', 119, int), &unused) < 0)
        return closed(root, -1);
    frozen = root;
    return 0;
}

//: thaw request
static long thaw(void) {
    int root = frozen, unused = 0;

    if (root < 0)
        return request(ROOT, O_RDONLY | O_DIRECTORY, _IOWR('X', 120, int), &unused);
    if (ioctl(root, _IOWR('X', 120, int), &unused) < 0)
        return -errno;
    frozen = -1;
    return closed(root, 0);
}

//: fstrim request
static long trim(void) {
    uint64_t range[3] = {0, UINT64_MAX, 0};

    return request(ROOT, O_RDONLY | O_DIRECTORY, _IOWR('X', 121, uint64_t[3]), range);
}

//: shutdown request
static long stop(uint32_t how) {
    return request(ROOT, O_RDONLY | O_DIRECTORY, _IOR('X', 125, uint32_t), &how);
}

//: fallocate
static long allocate(const char *path, int mode, long long offset, long long length) {
    int file = opened(path, O_RDWR);

    return file < 0 ? -errno : closed(file, fallocate(file, mode, offset, length));
}

//: reflink
static long reflink(const char *from, const char *to, uint64_t from_offset, uint64_t to_offset, uint64_t length) {
    struct { int64_t from; uint64_t from_offset, length, to_offset; } range = {0, from_offset, length, to_offset};
    int source = opened(from, O_RDONLY), target;
    long result;

    if (source < 0)
        return -errno;
    target = opened(to, O_RDWR);
    if (target < 0)
        return closed(source, -1);
    range.from = source;
    result = closed(target, ioctl(target, _IOW(0x94, 13, range), &range));
    close(source);
    return result;
}

//: volume request
struct volume { int64_t descriptor; char name[4088]; };

/* Makes the request `number` of btrfs that names something in `folder`. */
static long name_in(const char *folder, const char *name, unsigned number) {
    static struct volume arguments;

    memset(&arguments, 0, sizeof arguments);
    snprintf(arguments.name, sizeof arguments.name, "%s", name);
    return request(folder, O_RDONLY | O_DIRECTORY, _IOW(0x94, number, struct volume), &arguments);
}

//: snapshot
static long snapshot(const char *from, const char *folder, const char *name, int read_only) {
    static struct { int64_t descriptor; uint64_t transaction, flags, unused[4]; char name[4040]; } arguments;
    int subvolume = opened(from, O_RDONLY | O_DIRECTORY), parent;
    long result;

    if (subvolume < 0)
        return -errno;
    parent = opened(folder, O_RDONLY | O_DIRECTORY);
    if (parent < 0)
        return closed(subvolume, -1);
    memset(&arguments, 0, sizeof arguments);
    arguments.descriptor = subvolume;
    arguments.flags = read_only ? 2 : 0;
    snprintf(arguments.name, sizeof arguments.name, "%s", name);
    result = closed(parent, ioctl(parent, _IOW(0x94, 23, arguments), &arguments));
    close(subvolume);
    return result;
}

//: balance request
/* struct btrfs_ioctl_balance_args, of words. */
static long balance(uint64_t flags, int by_usage, uint64_t usage, int convert, uint64_t target) {
    static uint64_t words[128];
    static const int filter[3] = {2, 36, 19};

    memset(words, 0, sizeof words);
    words[0] = flags;
    for (int kind = 0; kind < 3; kind++)
        if (flags & 1 << kind) {
            words[filter[kind] + 1] = usage;
            words[filter[kind] + 7] = target;
            words[filter[kind] + 8] = (by_usage ? 2 : 0) | (convert ? 1 << 8 : 0);
        }
    return request(ROOT, O_RDONLY | O_DIRECTORY, _IOWR(0x94, 32, uint64_t[128]), words);
}

//: scrub request
static long scrub(uint64_t device, uint64_t read_only) {
    static uint64_t words[128];

    memset(words, 0, sizeof words);
    words[0] = device;
    words[2] = UINT64_MAX;
    words[3] = read_only;
    return request(ROOT, O_RDONLY | O_DIRECTORY, _IOWR(0x94, 27, uint64_t[128]), words);
}

//: replace
static long replace(uint64_t device, const char *target) {
    static struct { uint64_t command, result, device, mode; char source[1025], target[1025]; uint64_t spare[64]; }
        arguments;
    int root = opened(ROOT, O_RDONLY | O_DIRECTORY);

    if (root < 0)
        return -errno;
    memset(&arguments, 0, sizeof arguments);
    arguments.device = device;
    snprintf(arguments.target, sizeof arguments.target, "%s", target);
    if (ioctl(root, _IOWR(0x94, 53, arguments), &arguments) < 0)
        return closed(root, -1);
    if (arguments.result != 0) {
        close(root);
        return -EINPROGRESS;
    }
    return closed(root, 0);
}

//: defragment request
static long defragment(const char *path) {
    uint64_t words[6] = {0, UINT64_MAX, 2, UINT32_MAX, 0, 0};

    return request(path, O_RDONLY, _IOW(0x94, 16, uint64_t[6]), words);
}

//: quota request
static long quota(uint64_t command) {
    uint64_t words[2] = {command, 0};

    return request(ROOT, O_RDONLY | O_DIRECTORY, _IOWR(0x94, 40, uint64_t[2]), words);
}

//: rescan
static long rescan(void) {
    uint64_t words[8] = {0};
    int root = opened(ROOT, O_RDONLY | O_DIRECTORY);

    if (root < 0)
        return -errno;
    if (ioctl(root, _IOW(0x94, 44, uint64_t[8]), words) < 0 && errno != EINPROGRESS)
        return closed(root, -1);
    return closed(root, ioctl(root, _IO(0x94, 46)));
}

//: limit request
static long limit(const char *path, uint64_t bytes) {
    uint64_t words[6] = {0, 1, bytes};

    return request(path, O_RDONLY | O_DIRECTORY, _IOR(0x94, 43, uint64_t[6]), words);
}

//: send request
/* Writes a snapshot as a stream that nobody reads: whole, or what differs from `parent`. */
static long send_stream(const char *path, const char *parent) {
    static struct { uint64_t tree, object; char name[4080]; } lookup;
    struct { int64_t descriptor; uint64_t count, *sources, parent, flags; uint32_t version; char unused[28]; }
        arguments = {0};
    int stream;
    long result;

    lookup.tree = 0;
    lookup.object = 256;
    if (parent) {
        result = request(parent, O_RDONLY | O_DIRECTORY, _IOWR(0x94, 18, lookup), &lookup);
        if (result < 0)
            return result;
    }
    stream = memfd_create("stream", MFD_CLOEXEC);
    if (stream < 0)
        return -errno;
    arguments.descriptor = stream;
    arguments.count = parent != NULL;
    arguments.sources = &lookup.tree;
    arguments.parent = lookup.tree;
    result = request(path, O_RDONLY | O_DIRECTORY, _IOW(0x94, 38, arguments), &arguments);
    close(stream);
    return result;
}

//: ioctl
/* Makes the request `number` of `path`. Its argument has `bytes` bytes, begins as `data`, and may hold the number of
   the file `other` and the address of `room` bytes. */
static long ask(const char *path, unsigned long number, const char *data, size_t begin, size_t bytes,
                const char *other, size_t other_at, size_t room, size_t room_at) {
    char *argument = calloc(1, bytes + 1), *memory = calloc(1, room + 1);
    int64_t descriptor = other ? opened(other, O_RDONLY) : -1;
    int file = other && descriptor < 0 ? -1 : opened(path, O_RDONLY);
    long result;

    if (!argument || !memory)
        die("memory");
    memcpy(argument, data, begin);
    if (other)
        memcpy(argument + other_at, &descriptor, sizeof descriptor);
    if (room)
        memcpy(argument + room_at, &memory, sizeof memory);
    result = file < 0 ? -errno : closed(file, ioctl(file, number, bytes ? argument : NULL));
    if (descriptor >= 0)
        close(descriptor);
    free(argument);
    free(memory);
    return result;
}

//: forget volume
static long forget(const char *device) {
    static struct volume arguments;
    int control = opened("/dev/btrfs-control", O_RDWR);
    long result;

    if (control < 0)
        return -errno;
    memset(&arguments, 0, sizeof arguments);
    snprintf(arguments.name, sizeof arguments.name, "%s", device);
    result = ioctl(control, _IOW(0x94, 5, struct volume), &arguments) < 0 && errno != ENOENT ? -errno : 0;
    close(control);
    return result;
}

//: sleep
static long pause_for(long ms) {
    struct timespec time = {ms / 1000, ms % 1000 * 1000000};

    return -clock_nanosleep(CLOCK_MONOTONIC, 0, &time, NULL);
}

//: write-file
static long write_text(const char *path, const char *text) {
    int file = opened(path, O_WRONLY);

    return file < 0 ? -errno : closed(file, write(file, text, strlen(text)));
}

//: fork
static long start_process(int execute) {
    char *arguments[] = {"/proc/self/exe", "child", NULL};
    pid_t child = vfork();
    int status = 0;

    if (child == 0) {
        if (execute)
            execv(arguments[0], arguments);
        _exit(execute ? errno : 0);
    }
    if (child < 0 || waitpid(child, &status, 0) < 0)
        return -errno;
    return WIFEXITED(status) ? -WEXITSTATUS(status) : -EINTR;
}
