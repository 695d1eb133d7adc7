//: image
/* Makes the first disk equal to the image, and the others zero. */
static void fill_disks(const char *image) {
    static char wanted[1 << 20] __attribute__((aligned(4096)));
    static char there[1 << 20] __attribute__((aligned(4096)));

    for (int number = 0; number < disks; number++) {
        int to = open(disk[number], O_RDWR | O_DIRECT | O_CLOEXEC);
        int from = open(number == 0 ? image : "/dev/null", O_RDONLY | O_DIRECT | O_CLOEXEC);
        ssize_t bytes;

        if (from < 0)
            from = open(number == 0 ? image : "/dev/null", O_RDONLY | O_CLOEXEC);
        if (to < 0 || from < 0)
            die(to < 0 ? disk[number] : image);
        for (off_t at = 0; (bytes = pread(to, there, sizeof there, at)) > 0; at += bytes) {
            memset(wanted, 0, sizeof wanted);
            if (pread(from, wanted, bytes, at) < 0)
                die(image);
            for (ssize_t part = 0; part < bytes; part += 4096) {
                if (memcmp(wanted + part, there + part, 4096) == 0)
                    continue;
                memcpy(there + part, wanted + part, 4096);
                if (pwrite(to, there + part, 4096, at + part) != 4096)
                    die(disk[number]);
            }
        }
        close(from);
        close(to);
    }
}

//: left
/* Unmounts what is mounted still, and says what the kernel holds although nothing is. */
static void clean_up(int reset, const char *image) {
    struct timespec moment = {0, 300000000};
    int tries, held;

    printf("repro: clean-up\n");
    if (frozen >= 0) {
        int unused = 0;

        ioctl(frozen, _IOWR('X', 120, int), &unused);
        close(frozen);
        frozen = -1;
    }
    nanosleep(&moment, NULL);
    if (disks == 0)
        return;
    for (tries = 0; tries < 100 && umount2(ROOT, 0) == 0; tries++)
        ;
    if (errno != EINVAL)
        printf("repro: LEFT: a mount cannot be undone: %s\n", strerror(errno));
    mounted = 0;
    for (int number = 0; number < disks; number++) {
        forget(disk[number]);
        for (tries = 0; (held = open(disk[number], O_WRONLY | O_EXCL | O_CLOEXEC)) < 0 && errno == EBUSY && tries < 100;
             tries++)
            usleep(20000);
        if (held < 0)
            printf("repro: LEFT: %s cannot be opened, and nothing is mounted: %s\n", disk[number], strerror(errno));
        else
            close(held);
    }
    if (reset)
        fill_disks(image);
}

