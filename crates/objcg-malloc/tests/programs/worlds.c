/* Times at which programs allocate: before main, while libraries come and go, as threads and the process end, around fork. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <malloc.h>
#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"

enum { NR_THREADS = 4, NR_OBJECTS = 300, NR_ROUNDS = 50 };

/* What C++ does with objects of threads. */
extern void *__dso_handle;
int __cxa_thread_atexit_impl(void (*destructor)(void *), void *object, void *library);

static char *text_of(const char *text)
{
    char *copy = malloc(strlen(text) + 1);
    CHECK(copy);
    return strcpy(copy, text);
}

/* Objects of many sizes, all with their number in them. */
static void make_all(void **objects)
{
    for (size_t i = 0; i < NR_OBJECTS; i++) {
        objects[i] = malloc(8 + i * i);
        CHECK(objects[i]);
        memcpy(objects[i], &i, sizeof i);
    }
}

static void drop_all(void **objects)
{
    for (size_t i = 0; i < NR_OBJECTS; i++) {
        CHECK(memcmp(objects[i], &i, sizeof i) == 0);
        free(objects[i]);
    }
}

static void churn(void)
{
    void *objects[NR_OBJECTS];
    make_all(objects);
    drop_all(objects);
}

/* ---- Before main ---- */

static char *made_first, *made_by_constructor;

static void make_first(void)
{
    made_first = text_of("preinit");
}

#ifndef STATIC
__attribute__((section(".preinit_array"), used)) static void (*const PREINIT)(void) = make_first;
#else
__attribute__((constructor(101))) static void make_at_once(void)
{
    make_first();
}
#endif

__attribute__((constructor)) static void construct(void)
{
    made_by_constructor = text_of("constructor");
    churn();
}

static void memory_from_before_main_is_freed(void)
{
    CHECK(strcmp(made_first, "preinit") == 0 && strcmp(made_by_constructor, "constructor") == 0);
    made_first = realloc(made_first, 100000);
    CHECK(strcmp(made_first, "preinit") == 0);
    free(made_first), free(made_by_constructor);
    churn();
}

/* ---- Libraries ---- */

#ifndef STATIC
static void *open_and_close(void *path)
{
    for (int round = 0; round < NR_ROUNDS; round++) {
        void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
        if (!library)
            fprintf(stderr, "%s\n", dlerror());
        CHECK(library);
        void *(*make)(void) = (void *(*)(void))dlsym(library, "plugin_make");
        CHECK(make);
        free(make());
        churn();
        CHECK(dlclose(library) == 0);
    }
    return NULL;
}

static void libraries_that_allocate_come_and_go(void)
{
    pthread_t threads[NR_THREADS];
    char *path = getenv("PLUGIN");
    CHECK(path);
    for (int i = 0; i < NR_THREADS; i++)
        CHECK(pthread_create(&threads[i], NULL, open_and_close, path) == 0);
    for (int i = 0; i < NR_THREADS; i++)
        CHECK(pthread_join(threads[i], NULL) == 0);
}
#endif

/* ---- Threads ---- */

static pthread_key_t key;

/* Destructors are run again while they leave something behind. */
static void destroy(void *left)
{
    size_t nr_left = *(size_t *)left;
    free(left);
    churn();
    if (nr_left > 0) {
        size_t *next = malloc(sizeof *next);
        *next = nr_left - 1;
        CHECK(pthread_setspecific(key, next) == 0);
    }
}

static void destroy_thread_local(void *object)
{
    free(object);
    churn();
}

static void *leave_things_behind(void *how)
{
    size_t *left = malloc(sizeof *left);
    *left = 2;
    CHECK(pthread_setspecific(key, left) == 0);
    CHECK(__cxa_thread_atexit_impl(destroy_thread_local, malloc(100), &__dso_handle) == 0);
    churn();
    if (how)
        pthread_exit(how);
    return NULL;
}

static void threads_end_with_destructors_that_allocate(void)
{
    CHECK(pthread_key_create(&key, destroy) == 0);
    for (int round = 0; round < NR_ROUNDS; round++) {
        pthread_t threads[NR_THREADS];
        for (int i = 0; i < NR_THREADS; i++)
            CHECK(pthread_create(&threads[i], NULL, leave_things_behind, i % 2 ? &key : NULL) == 0);
        for (int i = 0; i < NR_THREADS; i++) {
            void *result;
            CHECK(pthread_join(threads[i], &result) == 0 && result == (i % 2 ? &key : NULL));
        }
    }
}

static void *wait_for_ever(void *pipe_end)
{
    char byte;
    churn();
    /* A cancellation point. */
    (void)!read(*(int *)pipe_end, &byte, 1);
    return NULL;
}

static void cancelled_threads_end(void)
{
    int ends[2];
    CHECK(pipe(ends) == 0);
    for (int round = 0; round < NR_ROUNDS; round++) {
        pthread_t thread;
        void *result;
        CHECK(pthread_create(&thread, NULL, wait_for_ever, &ends[0]) == 0);
        CHECK(pthread_cancel(thread) == 0 && pthread_join(thread, &result) == 0);
        CHECK(result == PTHREAD_CANCELED);
    }
}

static void *hand_over(void *objects)
{
    make_all(objects);
    return NULL;
}

static void what_a_thread_leaves_others_free(void)
{
    for (int round = 0; round < NR_ROUNDS; round++) {
        void *objects[NR_OBJECTS];
        pthread_t thread;
        CHECK(pthread_create(&thread, NULL, hand_over, objects) == 0 && pthread_join(thread, NULL) == 0);
        drop_all(objects);
    }
}

static void the_main_thread_ends_first(void)
{
    pthread_t thread;
    CHECK(pthread_key_create(&key, destroy) == 0);
    CHECK(pthread_create(&thread, NULL, leave_things_behind, NULL) == 0);
    CHECK(pthread_detach(thread) == 0);
    pthread_exit(NULL);
}

/* ---- The end ---- */

static void *kept[NR_OBJECTS];

static void drop_kept(void)
{
    drop_all(kept);
    churn();
}

__attribute__((destructor)) static void destruct(void)
{
    churn();
}

static void memory_is_freed_at_exit(void)
{
    make_all(kept);
    CHECK(atexit(drop_kept) == 0 && atexit(churn) == 0);
}

/* ---- fork ---- */

static void children_of_a_fork_have_what_the_parent_had(void)
{
    void *objects[NR_OBJECTS];
    make_all(objects);
    for (int round = 0; round < NR_ROUNDS; round++) {
        int status;
        pid_t child = fork();
        CHECK(child >= 0);
        if (child == 0) {
            drop_all(objects);
            what_a_thread_leaves_others_free();
            exit(0);
        }
        CHECK(waitpid(child, &status, 0) == child && status == 0);
    }
    drop_all(objects);
}

static void vfork_and_exec_run(void)
{
    for (int round = 0; round < NR_ROUNDS; round++) {
        int status;
        pid_t child = vfork();
        if (child == 0) {
            execl("/bin/true", "true", (char *)NULL);
            _exit(127);
        }
        CHECK(child > 0 && waitpid(child, &status, 0) == child && status == 0);
        churn();
    }
}

static const struct test_case CASES[] = {
    { "memory_from_before_main_is_freed", memory_from_before_main_is_freed },
#ifndef STATIC
    { "libraries_that_allocate_come_and_go", libraries_that_allocate_come_and_go },
#endif
    { "threads_end_with_destructors_that_allocate", threads_end_with_destructors_that_allocate },
    { "cancelled_threads_end", cancelled_threads_end },
    { "what_a_thread_leaves_others_free", what_a_thread_leaves_others_free },
    { "the_main_thread_ends_first", the_main_thread_ends_first },
    { "memory_is_freed_at_exit", memory_is_freed_at_exit },
    { "children_of_a_fork_have_what_the_parent_had", children_of_a_fork_have_what_the_parent_had },
    { "vfork_and_exec_run", vfork_and_exec_run },
};

int main(int argc, char **argv)
{
    return run_case(CASES, sizeof CASES / sizeof *CASES, argc, argv);
}
