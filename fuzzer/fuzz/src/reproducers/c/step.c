//: hooks
/* Prepares the hooks, and at last has them count: by calls that allocate nothing themselves. */
static void begin_step(int round, int step) {
    unsigned nth = 0;

    for (int index = 0; index < FAULTS; index++)
        if (faults[index].round == round && faults[index].step == step)
            arm_one(&faults[index], index);
    MARK("round %d step %d\n", round, step);
    for (int index = 0; index < FAULTS; index++)
        if (faults[index].round == round && faults[index].step == step) {
            nth += faults[index].nth;
            if (faults[index].interval && write(probability[index], "100", 3) < 0)
                die("probability");
        }
    if (nth)
        dprintf(fail_nth, "%u", nth);
}

static void end_step(int round, int step) {
    if (write(fail_nth, "0", 1) < 0)
        die("fail-nth");
    for (int index = 0; index < FAULTS; index++)
        if (faults[index].round == round && faults[index].step == step && write(probability[index], "0", 1) < 0)
            die("probability");
    MARK("end of round %d step %d\n", round, step);
    for (int index = 0; index < FAULTS; index++)
        if (faults[index].round == round && faults[index].step == step)
            disarm_one(&faults[index], index);
}

//: names
/* The task's name tells a script the step. Children have it from this task. */
static void begin_step(int round, int step) {
    char name[16];

    snprintf(name, sizeof name, "repro %d.%d", round, step);
    MARK("round %d step %d\n", round, step);
    prctl(PR_SET_NAME, name);
}

static void end_step(int round, int step) {
    prctl(PR_SET_NAME, "repro");
    MARK("end of round %d step %d\n", round, step);
}

//: step
/* A step that needs a mounted disk is left out where none is. */
#define STEP(number, kind, needs_mount, call)                                                      \
    do {                                                                                           \
        if (needs_mount && !mounted) {                                                             \
            printf("repro: step %d, %s: left out, as nothing is mounted\n", number, kind);         \
        } else {                                                                                   \
            long result;                                                                           \
            begin_step(round, number);                                                             \
            result = call;                                                                         \
            end_step(round, number);                                                               \
            report(number, kind, result);                                                          \
        }                                                                                          \
    } while (0)
