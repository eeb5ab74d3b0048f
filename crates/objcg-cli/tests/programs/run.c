/* What `objcg run` is shown: `run WHAT` does one thing. */
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { NR_OBJECTS = 1000, OBJECT_BYTES = 100, LARGE_BYTES = 100000000, NR_THREADS = 3, STATUS = 7 };

/* Not known to the compiler. */
static void *volatile kept;

static void hold(int nr_objects)
{
    for (int i = 0; i < nr_objects; i++)
        if (!(kept = malloc(OBJECT_BYTES)))
            abort();
}

static void *work(void *number)
{
    char name[16];
    int nr = *(int *)number;
    snprintf(name, sizeof name, "worker-%d", nr);
    pthread_setname_np(pthread_self(), name);
    hold(nr * NR_OBJECTS);
    return NULL;
}

static void start_threads(void)
{
    pthread_t threads[NR_THREADS];
    int numbers[NR_THREADS] = { 1, 2, 3 };
    for (int i = 0; i < NR_THREADS; i++)
        if (pthread_create(&threads[i], NULL, work, &numbers[i]))
            abort();
    for (int i = 0; i < NR_THREADS; i++)
        if (pthread_join(threads[i], NULL))
            abort();
}

static void *end_early(void *argument)
{
    kept = malloc(OBJECT_BYTES);
    pthread_exit(argument);
}

static int wait_for_term(void)
{
    sigset_t signals;
    int signal;
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigprocmask(SIG_BLOCK, &signals, NULL);
    puts("ready");
    fflush(stdout);
    sigwait(&signals, &signal);
    puts("terminated");
    return STATUS;
}

int main(int argc, char **argv)
{
    const char *what = argc > 1 ? argv[1] : "";
    if (strcmp(what, "hold") == 0) {
        hold(NR_OBJECTS);
    } else if (strcmp(what, "exit") == 0) {
        return STATUS;
    } else if (strcmp(what, "_exit") == 0) {
        hold(NR_OBJECTS);
        _exit(STATUS);
    } else if (strcmp(what, "large") == 0) {
        puts((kept = malloc(LARGE_BYTES)) ? "granted" : "refused");
    } else if (strcmp(what, "threads") == 0) {
        start_threads();
    } else if (strcmp(what, "pthread_exit") == 0) {
        pthread_t thread;
        void *result = NULL;
        pthread_create(&thread, NULL, end_early, argv);
        pthread_join(thread, &result);
        puts(result == argv ? "joined" : "lost");
    } else if (strcmp(what, "kill") == 0) {
        hold(NR_OBJECTS);
        raise(SIGKILL);
    } else if (strcmp(what, "double free") == 0) {
        kept = malloc(OBJECT_BYTES);
        free(kept);
        free(kept);
    } else if (strcmp(what, "wait") == 0) {
        return wait_for_term();
    }
    return 0;
}
