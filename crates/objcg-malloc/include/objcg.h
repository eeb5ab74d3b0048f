/*
 * objcg in C: groups, limits and per-CPU memory.
 *
 * In a program that is linked with libobjcg_malloc, or has it preloaded, malloc and its kin are objcg's. Every object belongs to the group that the
 * thread was in when it was allocated, whoever frees it. Threads start in the root: what is the root's is not counted, and
 * has no limit.
 *
 *     objcg_memcg_t tenant, before;
 *     objcg_create(objcg_root(), "tenant", &tenant);
 *     objcg_set_max(tenant, 64 << 20);
 *     objcg_enter(tenant, &before);
 *     char *rows = malloc(1 << 20);            // the tenant's; NULL and ENOMEM when it is over its limit
 *     objcg_leave(before);
 *     free(rows);                              // from any thread, in any group
 *     objcg_delete(tenant);
 *
 * A handle is a number. After its group is deleted it gives OBJCG_ESTALE, for ever: no function crashes on it, and no later
 * group gets it. Functions that return int return an objcg_status; objcg_strerror tells what it means. What is asked for
 * goes through pointers, which are left alone unless OBJCG_OK is returned. Unless a line says otherwise, functions may be
 * called by any thread at any time but from signal handlers, and take well below a microsecond.
 */
#ifndef OBJCG_H
#define OBJCG_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* A group's handle; 0 is none's. */
typedef uint64_t objcg_memcg_t;

/* No limit. */
#define OBJCG_UNLIMITED UINT64_MAX

/* Bytes of the longest name, without its end. */
#define OBJCG_NAME_MAX 255

enum objcg_status {
    OBJCG_OK = 0,
    OBJCG_EINVAL = 1,        /* an argument is NULL, or out of its range */
    OBJCG_ESTALE = 2,        /* no such group: it was deleted, or the handle was never one */
    OBJCG_EEXIST = 3,        /* the parent has a child of that name */
    OBJCG_ENOENT = 4,        /* there is none */
    OBJCG_ENAME = 5,         /* not a name: 1 to 255 bytes of UTF-8 without '/' */
    OBJCG_ELIMIT = 6,        /* over the limit of a group */
    OBJCG_ENOMEM = 7,        /* the process is out of memory */
    OBJCG_EROOT = 8,         /* the root is not deleted, nor limited */
    OBJCG_ECHILDREN = 9,     /* the group has children: delete them first */
    OBJCG_ERANGE = 10        /* the buffer is too small */
};

/* What a status means, in English. Never NULL; never freed. */
const char *objcg_strerror(int status);

/* ---- Groups ---- */

/* The root: the parent of all others. */
objcg_memcg_t objcg_root(void);

/*
 * Makes a child, without limits. It lives until objcg_delete. Its own memory is charged to the parent: 288 bytes, 552 with a
 * name over 128.
 * OBJCG_ESTALE, OBJCG_EINVAL, OBJCG_ENAME, OBJCG_EEXIST, OBJCG_ELIMIT, OBJCG_ENOMEM.
 */
int objcg_create(objcg_memcg_t parent, const char *name, objcg_memcg_t *group);

/*
 * Deletes a group. What is charged to it becomes its parent's, without a look at any object; threads that are in it are in
 * its parent. OBJCG_ESTALE, OBJCG_EROOT, OBJCG_ECHILDREN.
 */
int objcg_delete(objcg_memcg_t group);

/* The child of that name. OBJCG_ESTALE, OBJCG_EINVAL, OBJCG_ENAME, OBJCG_ENOENT. */
int objcg_find(objcg_memcg_t parent, const char *name, objcg_memcg_t *group);

/* The parent. OBJCG_ESTALE; OBJCG_ENOENT for the root. */
int objcg_parent(objcg_memcg_t group, objcg_memcg_t *parent);

/*
 * Up to `room` children, newest first, and how many there are, which may be more. `children` may be NULL if `room` is 0.
 * Linear in the children. OBJCG_ESTALE, OBJCG_EINVAL.
 */
int objcg_children(objcg_memcg_t group, objcg_memcg_t *children, size_t room, size_t *nr_children);

/*
 * The name and its end, at most OBJCG_NAME_MAX + 1 bytes; the root's is empty. OBJCG_ESTALE, OBJCG_EINVAL; OBJCG_ERANGE if it
 * does not fit in `room` bytes.
 */
int objcg_name(objcg_memcg_t group, char *buffer, size_t room);

/* ---- The thread's group ---- */

/*
 * What the thread allocates from now on is charged to `group`. Gives the group that it was in, unless `previous` is NULL.
 * OBJCG_ESTALE, OBJCG_ENOMEM: then the thread stays where it is.
 */
int objcg_enter(objcg_memcg_t group, objcg_memcg_t *previous);

/*
 * Goes back to the group that objcg_enter gave. If that was deleted meanwhile the thread goes to the root, and OBJCG_ESTALE
 * says so.
 */
int objcg_leave(objcg_memcg_t previous);

/* The group that the thread has entered; the root if none. Stale if that was deleted meanwhile. */
objcg_memcg_t objcg_current(void);

/* ---- Limits, in bytes; OBJCG_UNLIMITED lifts one ---- */

/*
 * The hard limit: what would take the group's usage over it is refused, malloc returns NULL. A limit below the usage refuses
 * everything until enough was freed. OBJCG_ESTALE, OBJCG_EROOT.
 */
int objcg_set_max(objcg_memcg_t group, uint64_t nr_bytes);
int objcg_max(objcg_memcg_t group, uint64_t *nr_bytes);

/* The soft limit: charges above it are counted, and none is refused. OBJCG_ESTALE, OBJCG_EROOT. */
int objcg_set_high(objcg_memcg_t group, uint64_t nr_bytes);
int objcg_high(objcg_memcg_t group, uint64_t *nr_bytes);

/* ---- What a group holds ---- */

/* Bytes charged to the group and its descendants, with what CPUs hold ready for them. OBJCG_ESTALE, OBJCG_EINVAL. */
int objcg_usage(objcg_memcg_t group, uint64_t *nr_bytes);

/* The most bytes that were charged at once. OBJCG_ESTALE, OBJCG_EINVAL. */
int objcg_peak(objcg_memcg_t group, uint64_t *nr_bytes);

/* Gives back what CPUs hold ready for the group and its descendants: its usage is exact then. Microseconds a CPU. */
int objcg_drain(objcg_memcg_t group);

/* Later versions add fields at the end. */
struct objcg_stat {
    uint64_t slab_objects;   /* objects of up to 32 KiB */
    uint64_t slab_bytes;     /* bytes of their slots */
    uint64_t large_objects;  /* larger ones */
    uint64_t large_bytes;    /* bytes of their pages */
    uint64_t percpu_objects; /* allocations of per-CPU memory, and counters */
    uint64_t percpu_bytes;   /* their bytes on all CPUs */
    uint64_t owner_bytes;    /* 4 for each object in a slab or on all CPUs */
    uint64_t group_bytes;    /* of descendants, and of what deleted ones left */
    uint64_t stock_bytes;    /* held ready by CPUs */
};

/*
 * What the group and its descendants hold, found by looking; the fields' bytes add up to the usage while nothing else runs.
 * `nr_bytes` is sizeof(struct objcg_stat): a library that knows fewer fields sets the others to 0. Linear in the heap:
 * milliseconds for a gigabyte. OBJCG_ESTALE, OBJCG_EINVAL.
 */
int objcg_stat(objcg_memcg_t group, struct objcg_stat *stat, size_t nr_bytes);

/* Later versions add fields at the end. */
struct objcg_events {
    uint64_t high;           /* charges that left usage above the soft limit */
    uint64_t max;            /* charges that met the hard limit */
    uint64_t oom;            /* charges that it refused */
};

/* How often the group's limits were met; `nr_bytes` is sizeof(struct objcg_events). OBJCG_ESTALE, OBJCG_EINVAL. */
int objcg_events(objcg_memcg_t group, struct objcg_events *events, size_t nr_bytes);

/* ---- Memory on behalf of a group, whatever group the thread is in ---- */

/*
 * As malloc, calloc and aligned_alloc; freed by free, resized by realloc. NULL with errno ENOMEM, with ESTALE for a stale
 * handle, with EINVAL for an alignment that is no power of two.
 */
void *objcg_malloc(objcg_memcg_t group, size_t nr_bytes);
void *objcg_calloc(objcg_memcg_t group, size_t nr_items, size_t item_bytes);
void *objcg_aligned_alloc(objcg_memcg_t group, size_t align, size_t nr_bytes);

/* ---- Per-CPU memory, charged to the thread's group ---- */

/* CPUs that have a copy: those that may ever come up, from 0. */
unsigned objcg_nr_cpus(void);

/*
 * Zeroed memory on every CPU: 1 to 65,536 bytes at a power of two of up to 4,096. It costs its bytes on each CPU, and 4.
 * OBJCG_EINVAL, OBJCG_ELIMIT, OBJCG_ENOMEM.
 */
int objcg_percpu_alloc(size_t nr_bytes, size_t align, void **memory);

/* Gives it back; nothing happens to NULL. */
void objcg_percpu_free(void *memory);

/* A CPU's copy; NULL for a number that is no CPU's. */
void *objcg_percpu_ptr(void *memory, unsigned cpu);

/* The copy of the CPU that the thread is on; it may be on another when it uses it, so use atomics. */
void *objcg_percpu_this(void *memory);

/* A counter that all CPUs add to without sharing a cache line: 8 bytes on each CPU, and 4. */
typedef struct objcg_counter objcg_counter_t;

/* Makes one at 0. OBJCG_EINVAL, OBJCG_ELIMIT, OBJCG_ENOMEM. */
int objcg_counter_create(objcg_counter_t **counter);

/* Unmakes it; nothing happens to NULL. */
void objcg_counter_destroy(objcg_counter_t *counter);

/* Adds: some nanoseconds, no shared cache line. */
void objcg_counter_add(const objcg_counter_t *counter, int64_t delta);

/* The sum, exact once nobody adds any more. Linear in CPUs. */
int64_t objcg_counter_sum(const objcg_counter_t *counter);

/* The sum by one load, at most objcg_counter_bound away. */
int64_t objcg_counter_approximate(const objcg_counter_t *counter);
uint64_t objcg_counter_bound(const objcg_counter_t *counter);

#ifdef __cplusplus
}
#endif

#endif
