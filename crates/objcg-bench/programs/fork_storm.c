/*
 * Threads allocate, grow and free all the time while the main thread forks. A child finds what its parent made as it was,
 * frees it, allocates, starts a thread that allocates as well, and exits with 0. A lock that some thread held at the fork
 * and nobody gives back shows as a child that does not end: the alarm ends the program.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    NR_THREADS = 3,
    NR_FORKS = 300,
    NR_SLOTS = 512,
    NR_SHARED = 1000,
    NR_IN_CHILD = 500,
    MAX_SIZE = 2000,
    SECONDS = 60,
};

struct block {
    unsigned char *bytes;
    size_t size;
    unsigned char fill;
};

static struct block shared[NR_SHARED];
static atomic_bool is_over;
static atomic_ulong nr_turns;

static void die(const char *what)
{
    fprintf(stderr, "%s\n", what);
    _exit(1);
}

static unsigned next(unsigned *state)
{
    *state = *state * 1103515245u + 12345u;
    return *state >> 8;
}

/* Mostly small, some large enough for pages of their own. */
static size_t some_size(unsigned *state)
{
    size_t size = 1 + next(state) % MAX_SIZE;
    return next(state) % 64 == 0 ? size * 40 : 1 + size % (1 + next(state) % MAX_SIZE);
}

static void make(struct block *block, unsigned *state)
{
    block->size = some_size(state);
    block->fill = (unsigned char)next(state);
    block->bytes = malloc(block->size);
    if (!block->bytes)
        die("malloc failed");
    memset(block->bytes, block->fill, block->size);
}

static void check(const struct block *block)
{
    for (size_t i = 0; i < block->size; i++)
        if (block->bytes[i] != block->fill)
            die("a block has other bytes than were written");
}

static void grow(struct block *block, unsigned *state)
{
    size_t size = some_size(state);
    unsigned char *bytes = realloc(block->bytes, size);
    if (!bytes)
        die("realloc failed");
    if (size > block->size)
        memset(bytes + block->size, block->fill, size - block->size);
    block->bytes = bytes;
    block->size = size;
    check(block);
}

static void drop(struct block *block)
{
    check(block);
    free(block->bytes);
    block->bytes = NULL;
}

static void *churn(void *seed)
{
    struct block *slots = calloc(NR_SLOTS, sizeof *slots);
    unsigned state = (unsigned)(size_t)seed;
    if (!slots)
        die("calloc failed");
    while (!atomic_load(&is_over)) {
        struct block *slot = &slots[next(&state) % NR_SLOTS];
        if (!slot->bytes)
            make(slot, &state);
        else if (next(&state) % 4 == 0)
            grow(slot, &state);
        else
            drop(slot);
        atomic_fetch_add_explicit(&nr_turns, 1, memory_order_relaxed);
    }
    for (int i = 0; i < NR_SLOTS; i++)
        if (slots[i].bytes)
            drop(&slots[i]);
    free(slots);
    return NULL;
}

static void *allocate(void *seed)
{
    unsigned state = (unsigned)(size_t)seed;
    for (int i = 0; i < NR_IN_CHILD; i++) {
        struct block block;
        make(&block, &state);
        if (i % 8 == 0)
            grow(&block, &state);
        drop(&block);
    }
    return NULL;
}

/* What a child does: never returns. */
static void live_as_child(unsigned seed)
{
    pthread_t thread;
    alarm(SECONDS);
    for (int i = 0; i < NR_SHARED; i++)
        drop(&shared[i]);
    allocate((void *)(size_t)seed);
    if (pthread_create(&thread, NULL, allocate, (void *)(size_t)(seed + 1)))
        die("no thread in the child");
    if (pthread_join(thread, NULL))
        die("the child's thread was not joined");
    exit(0);
}

int main(void)
{
    pthread_t threads[NR_THREADS];
    unsigned state = 1;
    alarm(SECONDS);
    for (int i = 0; i < NR_SHARED; i++)
        make(&shared[i], &state);
    for (size_t i = 0; i < NR_THREADS; i++)
        if (pthread_create(&threads[i], NULL, churn, (void *)(i + 100)))
            die("no thread");
    for (unsigned nr = 0; nr < NR_FORKS; nr++) {
        int status;
        pid_t child = fork();
        if (child < 0)
            die("fork failed");
        if (child == 0)
            live_as_child(nr + 1000);
        grow(&shared[nr % NR_SHARED], &state);
        if (waitpid(child, &status, 0) != child)
            die("waitpid failed");
        if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
            fprintf(stderr, "child %u ended with wait status 0x%x\n", nr, (unsigned)status);
            return 1;
        }
    }
    atomic_store(&is_over, true);
    for (int i = 0; i < NR_THREADS; i++)
        if (pthread_join(threads[i], NULL))
            die("a thread was not joined");
    for (int i = 0; i < NR_SHARED; i++)
        drop(&shared[i]);
    if (atomic_load(&nr_turns) == 0)
        die("no thread got a turn");
    printf("%d children\n", NR_FORKS);
    return 0;
}
