/* Process 1 of a guest without agent: mounts what a program needs to inject by the kernel's own
 * interfaces, runs the command in the lines of /command, and ends the guest.
 *
 * As another process it runs the command in its arguments. With the environment variable `trace`
 * the kprobe events of /events are recorded from then on with their call traces. Process 1 writes
 * the trace to the disk that the variable names. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define TRACING "/sys/kernel/tracing/"

static void attach(const char *type, const char *place) {
    mkdir(place, 0755);
    if (mount(type, place, type, 0, ""))
        printf("init: cannot mount %s: %s\n", place, strerror(errno));
}

static void copy(const char *from, const char *to) {
    static char buffer[1 << 16];
    int in = open(from, O_RDONLY), out = open(to, O_WRONLY | O_APPEND);
    ssize_t bytes;

    if (in < 0 || out < 0) {
        printf("init: cannot copy %s to %s: %s\n", from, to, strerror(errno));
        return;
    }
    while ((bytes = read(in, buffer, sizeof buffer)) > 0)
        if (write(out, buffer, bytes) != bytes)
            printf("init: cannot write to %s: %s\n", to, strerror(errno));
    fsync(out);
    close(in);
    close(out);
}

/* Writes each line of `from` to `to` at once, as the kernel takes events. */
static void copy_lines(const char *from, const char *to) {
    char line[512];
    FILE *in = fopen(from, "r");
    int out = open(to, O_WRONLY | O_APPEND);

    while (in && fgets(line, sizeof line, in))
        if (write(out, line, strlen(line)) < 0)
            printf("init: the kernel refuses the event %s", line);
    if (in)
        fclose(in);
    close(out);
}

static void put(const char *path, const char *text) {
    int file = open(path, O_WRONLY);

    if (file < 0 || write(file, text, strlen(text)) < 0)
        printf("init: cannot write %s: %s\n", path, strerror(errno));
    close(file);
}

/* Runs a command in this process's place. The kernel asks the newest probe of a function first,
 * and a call that one makes fail reaches no other: so these come after a script's. */
static int run(char **command) {
    if (getenv("trace")) {
        put(TRACING "buffer_size_kb", "49152");
        copy_lines("/events", TRACING "kprobe_events");
        put(TRACING "options/stacktrace", "1");
        put(TRACING "events/kprobes/enable", "1");
    }
    execv(command[0], command);
    printf("init: cannot run %s: %s\n", command[0], strerror(errno));
    return 127;
}

int main(int arguments_count, char **arguments) {
    const char *trace = getenv("trace");
    static char line[16][256], *command[17];
    int count = 0, status = 0;
    FILE *file;
    pid_t program;

    setvbuf(stdout, NULL, _IONBF, 0);
    /* bpftrace asks a shell for a compiler, and dies where there is no shell. It needs none. */
    if (strcmp(arguments[0], "sh") == 0)
        return 127;
    if (getpid() != 1)
        return arguments_count > 1 ? run(arguments + 1) : 127;
    attach("proc", "/proc");
    attach("sysfs", "/sys");
    attach("devtmpfs", "/dev");
    attach("debugfs", "/sys/kernel/debug");
    attach("tracefs", "/sys/kernel/tracing");
    file = fopen("/command", "r");
    for (; file && count < 16 && fgets(line[count], sizeof line[count], file); count++) {
        line[count][strcspn(line[count], "\n")] = 0;
        command[count] = line[count];
    }
    program = fork();
    if (program == 0) {
        execv(command[0], command);
        printf("init: cannot run %s: %s\n", command[0], strerror(errno));
        _exit(127);
    }
    while (waitpid(program, &status, 0) != program && errno == EINTR)
        ;
    printf("init: the program ended with status %d\n", WIFEXITED(status) ? WEXITSTATUS(status) : 128);
    if (trace) {
        put(TRACING "events/kprobes/enable", "0");
        copy(TRACING "trace", trace);
    }
    /* The kernel may have more to say. */
    sleep(2);
    printf("init: the end\n");
    reboot(RB_AUTOBOOT);
    return 0;
}
