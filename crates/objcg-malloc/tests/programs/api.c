/* The C API, through its header. */
#define _GNU_SOURCE
#include <errno.h>
#include <objcg.h>
#include <pthread.h>

#include "check.h"

enum { NR_THREADS = 4, NR_OBJECTS = 1000, NR_ROUNDS = 20000 };

static objcg_memcg_t made(const char *name)
{
    objcg_memcg_t group = 0;
    CHECK(objcg_create(objcg_root(), name, &group) == OBJCG_OK && group != 0);
    return group;
}

static uint64_t usage_of(objcg_memcg_t group)
{
    uint64_t nr_bytes = 1;
    CHECK(objcg_drain(group) == OBJCG_OK && objcg_usage(group, &nr_bytes) == OBJCG_OK);
    return nr_bytes;
}

static void groups_are_made_found_and_deleted(void)
{
    objcg_memcg_t a = made("a"), b, found = 0, children[3];
    char name[OBJCG_NAME_MAX + 1];
    size_t nr_children = 0;
    CHECK(objcg_create(a, "b", &b) == OBJCG_OK);
    CHECK(objcg_find(objcg_root(), "a", &found) == OBJCG_OK && found == a);
    CHECK(objcg_find(a, "b", &found) == OBJCG_OK && found == b);
    CHECK(objcg_find(a, "c", &found) == OBJCG_ENOENT && found == b);
    CHECK(objcg_parent(b, &found) == OBJCG_OK && found == a);
    CHECK(objcg_parent(a, &found) == OBJCG_OK && found == objcg_root());
    CHECK(objcg_parent(objcg_root(), &found) == OBJCG_ENOENT);
    CHECK(objcg_name(b, name, sizeof name) == OBJCG_OK && strcmp(name, "b") == 0);
    CHECK(objcg_name(b, name, 2) == OBJCG_OK && objcg_name(b, name, 1) == OBJCG_ERANGE);
    CHECK(objcg_name(objcg_root(), name, 1) == OBJCG_OK && name[0] == 0);
    CHECK(objcg_children(a, children, 3, &nr_children) == OBJCG_OK && nr_children == 1 && children[0] == b);
    CHECK(objcg_children(a, NULL, 0, &nr_children) == OBJCG_OK && nr_children == 1);
    CHECK(objcg_children(a, NULL, 1, &nr_children) == OBJCG_EINVAL);
    CHECK(objcg_delete(a) == OBJCG_ECHILDREN && objcg_delete(objcg_root()) == OBJCG_EROOT);
    CHECK(objcg_delete(b) == OBJCG_OK && objcg_delete(a) == OBJCG_OK);
}

static void bad_names_and_places_are_refused(void)
{
    objcg_memcg_t group = 7;
    char longest[OBJCG_NAME_MAX + 2] = "";
    memset(longest, 'x', OBJCG_NAME_MAX + 1);
    CHECK(objcg_create(objcg_root(), "", &group) == OBJCG_ENAME);
    CHECK(objcg_create(objcg_root(), "a/b", &group) == OBJCG_ENAME);
    CHECK(objcg_create(objcg_root(), "\xff\xfe", &group) == OBJCG_ENAME);
    CHECK(objcg_create(objcg_root(), longest, &group) == OBJCG_ENAME);
    CHECK(objcg_create(objcg_root(), NULL, &group) == OBJCG_EINVAL);
    CHECK(objcg_create(objcg_root(), "x", NULL) == OBJCG_EINVAL && group == 7);
    longest[OBJCG_NAME_MAX] = 0;
    CHECK(objcg_create(objcg_root(), longest, &group) == OBJCG_OK && group != 7);
    CHECK(objcg_create(objcg_root(), longest, &group) == OBJCG_EEXIST);
    CHECK(objcg_usage(group, NULL) == OBJCG_EINVAL && objcg_max(group, NULL) == OBJCG_EINVAL);
    CHECK(objcg_stat(group, NULL, 8) == OBJCG_EINVAL && objcg_events(group, NULL, 8) == OBJCG_EINVAL);
}

static void a_stale_handle_gives_an_error_everywhere(void)
{
    const objcg_memcg_t never[] = { 0, 1, UINT64_MAX, UINT64_MAX / 3 };
    objcg_memcg_t stale = made("gone"), later, out;
    CHECK(objcg_delete(stale) == OBJCG_OK);
    /* It may get the slot, not the handle. */
    later = made("gone");
    CHECK(later != stale);
    for (size_t i = 0; i <= sizeof never / sizeof *never; i++) {
        objcg_memcg_t bad = i == 0 ? stale : never[i - 1];
        struct objcg_events events;
        struct objcg_stat stat;
        uint64_t number;
        size_t nr;
        char name[8];
        if (bad == objcg_root())
            continue;
        CHECK(objcg_create(bad, "x", &out) == OBJCG_ESTALE && objcg_delete(bad) == OBJCG_ESTALE);
        CHECK(objcg_find(bad, "x", &out) == OBJCG_ESTALE && objcg_parent(bad, &out) == OBJCG_ESTALE);
        CHECK(objcg_children(bad, &out, 1, &nr) == OBJCG_ESTALE && objcg_name(bad, name, 8) == OBJCG_ESTALE);
        CHECK(objcg_enter(bad, &out) == OBJCG_ESTALE && objcg_current() == objcg_root());
        CHECK(objcg_set_max(bad, 1) == OBJCG_ESTALE && objcg_max(bad, &number) == OBJCG_ESTALE);
        CHECK(objcg_set_high(bad, 1) == OBJCG_ESTALE && objcg_high(bad, &number) == OBJCG_ESTALE);
        CHECK(objcg_usage(bad, &number) == OBJCG_ESTALE && objcg_peak(bad, &number) == OBJCG_ESTALE);
        CHECK(objcg_drain(bad) == OBJCG_ESTALE && objcg_stat(bad, &stat, sizeof stat) == OBJCG_ESTALE);
        CHECK(objcg_events(bad, &events, sizeof events) == OBJCG_ESTALE);
        errno = 0;
        CHECK(!objcg_malloc(bad, 8) && errno == ESTALE);
        errno = 0;
        CHECK(!objcg_calloc(bad, 8, 8) && errno == ESTALE);
        errno = 0;
        CHECK(!objcg_aligned_alloc(bad, 64, 8) && errno == ESTALE);
    }
}

static void what_a_thread_allocates_is_its_groups(void)
{
    objcg_memcg_t tenant = made("tenant"), inner = made("inner"), before = 0;
    CHECK(objcg_current() == objcg_root());
    CHECK(objcg_enter(tenant, &before) == OBJCG_OK && before == objcg_root());
    void *a = malloc(1000), *b = malloc(200000), *c = malloc(8000000);
    CHECK(objcg_enter(inner, &before) == OBJCG_OK && before == tenant && objcg_current() == inner);
    void *d = calloc(1, 500);
    CHECK(objcg_leave(before) == OBJCG_OK && objcg_current() == tenant);
    CHECK(objcg_enter(objcg_root(), NULL) == OBJCG_OK);
    void *nobodys = malloc(1000);
    struct objcg_stat stat;
    CHECK(objcg_stat(tenant, &stat, sizeof stat) == OBJCG_OK);
    CHECK(stat.slab_objects == 1 && stat.slab_bytes >= 1000 && stat.large_objects == 2);
    CHECK(stat.large_bytes >= 8200000 && stat.owner_bytes == 4 && stat.stock_bytes == 0);
    CHECK(usage_of(tenant) == stat.slab_bytes + stat.large_bytes + stat.owner_bytes);
    CHECK(usage_of(inner) >= 504 && usage_of(inner) < 600);
    free(a), free(b), free(c), free(d), free(nobodys);
    CHECK(usage_of(tenant) == 0 && usage_of(inner) == 0);
}

static void limits_refuse_with_null_and_are_counted(void)
{
    objcg_memcg_t tenant = made("tenant");
    struct objcg_events events;
    uint64_t number;
    CHECK(objcg_max(tenant, &number) == OBJCG_OK && number == OBJCG_UNLIMITED);
    CHECK(objcg_set_max(tenant, 1 << 20) == OBJCG_OK && objcg_max(tenant, &number) == OBJCG_OK && number == 1 << 20);
    CHECK(objcg_set_high(tenant, 1 << 19) == OBJCG_OK && objcg_high(tenant, &number) == OBJCG_OK && number == 1 << 19);
    CHECK(objcg_set_max(objcg_root(), 1) == OBJCG_EROOT && objcg_set_high(objcg_root(), 1) == OBJCG_EROOT);
    CHECK(objcg_enter(tenant, NULL) == OBJCG_OK);
    void *fits = malloc(700000);
    errno = 0;
    CHECK(fits && !malloc(700000) && errno == ENOMEM);
    errno = 0;
    CHECK(!realloc(fits, 2000000) && errno == ENOMEM);
    CHECK(objcg_events(tenant, &events, sizeof events) == OBJCG_OK);
    CHECK(events.high >= 1 && events.oom >= 2 && events.max >= events.oom);
    CHECK(objcg_peak(tenant, &number) == OBJCG_OK && number >= 700000 && number <= 1 << 20);
    CHECK(objcg_set_max(tenant, OBJCG_UNLIMITED) == OBJCG_OK);
    void *now = malloc(700000);
    CHECK(now && objcg_leave(objcg_root()) == OBJCG_OK);
    free(fits), free(now);
    CHECK(usage_of(tenant) == 0);
}

static void memory_is_taken_on_behalf_of_a_group(void)
{
    objcg_memcg_t tenant = made("tenant");
    CHECK(objcg_set_max(tenant, 1 << 20) == OBJCG_OK);
    void *a = objcg_malloc(tenant, 100), *b = objcg_aligned_alloc(tenant, 256, 100);
    unsigned char *c = objcg_calloc(tenant, 10, 10);
    CHECK(a && b && c && (uintptr_t)b % 256 == 0 && c[99] == 0 && objcg_current() == objcg_root());
    CHECK(usage_of(tenant) >= 3 * 104);
    errno = 0;
    CHECK(!objcg_malloc(tenant, 2 << 20) && errno == ENOMEM);
    errno = 0;
    CHECK(!objcg_calloc(tenant, SIZE_MAX / 2, 4) && errno == ENOMEM);
    errno = 0;
    CHECK(!objcg_aligned_alloc(tenant, 24, 8) && errno == EINVAL);
    free(a), free(b), free(c);
    CHECK(usage_of(tenant) == 0);
}

static void what_a_deleted_group_leaves_is_its_parents(void)
{
    objcg_memcg_t parent = made("parent"), child, before;
    CHECK(objcg_create(parent, "child", &child) == OBJCG_OK);
    CHECK(objcg_enter(child, &before) == OBJCG_OK);
    void *left = malloc(10000);
    CHECK(objcg_delete(child) == OBJCG_OK);
    void *later = malloc(10000);
    CHECK(usage_of(parent) >= 20000);
    CHECK(objcg_leave(child) == OBJCG_ESTALE && objcg_current() == objcg_root());
    free(left), free(later);
    /* What is left of the child is a vessel, at most. */
    CHECK(usage_of(parent) <= 64);
}

static void structures_may_be_shorter_and_longer(void)
{
    struct {
        struct objcg_stat known;
        uint64_t later;
    } longer = { .later = 99 };
    objcg_memcg_t tenant = made("tenant");
    uint64_t shorter[2] = { 99, 99 };
    void *object = objcg_malloc(tenant, 100);
    CHECK(objcg_stat(tenant, (struct objcg_stat *)&longer, sizeof longer) == OBJCG_OK);
    CHECK(longer.known.slab_objects == 1 && longer.later == 0);
    CHECK(objcg_stat(tenant, (struct objcg_stat *)shorter, sizeof *shorter) == OBJCG_OK);
    CHECK(shorter[0] == 1 && shorter[1] == 99);
    free(object);
}

static void *work_in(void *of_group)
{
    objcg_memcg_t group = *(objcg_memcg_t *)of_group;
    void **objects;
    CHECK(objcg_current() == objcg_root() && objcg_enter(group, NULL) == OBJCG_OK);
    objects = malloc(NR_OBJECTS * sizeof *objects);
    for (int i = 0; i < NR_OBJECTS; i++)
        CHECK((objects[i] = malloc((size_t)i + 1)));
    return objects;
}

static void threads_are_each_in_a_group_of_their_own(void)
{
    pthread_t threads[NR_THREADS];
    objcg_memcg_t groups[NR_THREADS];
    for (int i = 0; i < NR_THREADS; i++) {
        char name[2] = { (char)('a' + i), 0 };
        groups[i] = made(name);
        CHECK(pthread_create(&threads[i], NULL, work_in, &groups[i]) == 0);
    }
    for (int i = 0; i < NR_THREADS; i++) {
        void *result, **objects;
        struct objcg_stat stat;
        CHECK(pthread_join(threads[i], &result) == 0);
        objects = result;
        CHECK(objcg_stat(groups[i], &stat, sizeof stat) == OBJCG_OK && stat.slab_objects == NR_OBJECTS + 1);
        for (int k = 0; k < NR_OBJECTS; k++)
            free(objects[k]);
        free(objects);
        CHECK(usage_of(groups[i]) == 0 && objcg_delete(groups[i]) == OBJCG_OK);
    }
}

static void percpu_memory_is_charged_and_zero(void)
{
    objcg_memcg_t tenant = made("tenant");
    unsigned nr_cpus = objcg_nr_cpus();
    struct objcg_stat stat;
    void *memory = NULL;
    CHECK(nr_cpus >= 1 && objcg_enter(tenant, NULL) == OBJCG_OK);
    CHECK(objcg_percpu_alloc(40, 8, &memory) == OBJCG_OK && memory);
    CHECK(objcg_stat(tenant, &stat, sizeof stat) == OBJCG_OK);
    CHECK(stat.percpu_objects == 1 && stat.percpu_bytes == 40u * nr_cpus);
    for (unsigned cpu = 0; cpu < nr_cpus; cpu++) {
        uint64_t *copy = objcg_percpu_ptr(memory, cpu);
        CHECK(copy && copy[0] == 0 && copy[4] == 0);
        copy[0] = cpu + 1;
    }
    uint64_t here = *(uint64_t *)objcg_percpu_this(memory);
    CHECK(here >= 1 && here <= nr_cpus);
    CHECK(!objcg_percpu_ptr(memory, nr_cpus) && !objcg_percpu_ptr(NULL, 0));
    objcg_percpu_free(memory);
    objcg_percpu_free(NULL);
    CHECK(objcg_percpu_alloc(0, 8, &memory) == OBJCG_EINVAL && objcg_percpu_alloc(8, 3, &memory) == OBJCG_EINVAL);
    CHECK(objcg_percpu_alloc(65537, 8, &memory) == OBJCG_EINVAL && objcg_percpu_alloc(8, 8192, &memory) == OBJCG_EINVAL);
    CHECK(objcg_percpu_alloc(8, 8, NULL) == OBJCG_EINVAL);
    CHECK(objcg_set_max(tenant, 4096) == OBJCG_OK && objcg_percpu_alloc(65536, 8, &memory) == OBJCG_ELIMIT);
}

static void *count(void *counter)
{
    for (int i = 0; i < NR_ROUNDS; i++)
        objcg_counter_add(counter, 3);
    for (int i = 0; i < NR_ROUNDS; i++)
        objcg_counter_add(counter, -1);
    return NULL;
}

static void counters_are_exact_in_the_end(void)
{
    pthread_t threads[NR_THREADS];
    objcg_counter_t *counter = NULL;
    int64_t distance, sum = (int64_t)NR_THREADS * NR_ROUNDS * 2;
    CHECK(objcg_counter_create(NULL) == OBJCG_EINVAL && objcg_counter_create(&counter) == OBJCG_OK);
    for (int i = 0; i < NR_THREADS; i++)
        CHECK(pthread_create(&threads[i], NULL, count, counter) == 0);
    for (int i = 0; i < NR_THREADS; i++)
        CHECK(pthread_join(threads[i], NULL) == 0);
    CHECK(objcg_counter_sum(counter) == sum);
    distance = objcg_counter_approximate(counter) - sum;
    CHECK((uint64_t)(distance < 0 ? -distance : distance) <= objcg_counter_bound(counter));
    objcg_counter_destroy(counter);
    objcg_counter_destroy(NULL);
}

static void every_status_has_a_text_of_its_own(void)
{
    for (int status = OBJCG_OK; status <= OBJCG_ERANGE; status++) {
        CHECK(strlen(objcg_strerror(status)) > 0);
        for (int other = OBJCG_OK; other < status; other++)
            CHECK(strcmp(objcg_strerror(status), objcg_strerror(other)) != 0);
    }
    CHECK(strcmp(objcg_strerror(-1), objcg_strerror(12345)) == 0);
    CHECK(strcmp(objcg_strerror(OBJCG_ERANGE + 1), objcg_strerror(-1)) == 0);
}

static const struct test_case CASES[] = {
    { "groups_are_made_found_and_deleted", groups_are_made_found_and_deleted },
    { "bad_names_and_places_are_refused", bad_names_and_places_are_refused },
    { "a_stale_handle_gives_an_error_everywhere", a_stale_handle_gives_an_error_everywhere },
    { "what_a_thread_allocates_is_its_groups", what_a_thread_allocates_is_its_groups },
    { "limits_refuse_with_null_and_are_counted", limits_refuse_with_null_and_are_counted },
    { "memory_is_taken_on_behalf_of_a_group", memory_is_taken_on_behalf_of_a_group },
    { "what_a_deleted_group_leaves_is_its_parents", what_a_deleted_group_leaves_is_its_parents },
    { "structures_may_be_shorter_and_longer", structures_may_be_shorter_and_longer },
    { "threads_are_each_in_a_group_of_their_own", threads_are_each_in_a_group_of_their_own },
    { "percpu_memory_is_charged_and_zero", percpu_memory_is_charged_and_zero },
    { "counters_are_exact_in_the_end", counters_are_exact_in_the_end },
    { "every_status_has_a_text_of_its_own", every_status_has_a_text_of_its_own },
};

int main(int argc, char **argv)
{
    return run_case(CASES, sizeof CASES / sizeof *CASES, argc, argv);
}
