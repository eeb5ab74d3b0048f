/*
 * Three tenants in one process, each with a group of its own and 8 MiB. The second wants more than that: its allocation
 * fails, the others run on.
 *
 *     cc -o tenants tenants.c $(pkg-config --cflags --libs objcg)
 */
#include <objcg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NR_TENANTS 3
#define ROW_BYTES 1000

static void die_unless_ok(int status, const char *what)
{
    if (status != OBJCG_OK) {
        fprintf(stderr, "%s: %s\n", what, objcg_strerror(status));
        exit(1);
    }
}

struct row {
    struct row *next;
    char text[ROW_BYTES - sizeof(struct row *)];
};

/* Takes memory as any code does, and knows nothing of groups. Returns how many rows it has. */
static size_t read_rows(struct row **rows, size_t nr_wanted)
{
    size_t nr_rows = 0;
    while (nr_rows < nr_wanted) {
        struct row *row = malloc(sizeof *row);
        if (!row)
            break;
        memset(row->text, 'x', sizeof row->text);
        row->next = *rows;
        *rows = row;
        nr_rows++;
    }
    return nr_rows;
}

static void free_rows(struct row *row)
{
    while (row) {
        struct row *next = row->next;
        free(row);
        row = next;
    }
}

int main(void)
{
    static const char *const names[NR_TENANTS] = { "ann", "bob", "cleo" };
    static const size_t nr_wanted[NR_TENANTS] = { 3000, 20000, 5000 };
    objcg_memcg_t groups[NR_TENANTS];
    struct row *rows[NR_TENANTS] = { NULL };

    for (int i = 0; i < NR_TENANTS; i++) {
        die_unless_ok(objcg_create(objcg_root(), names[i], &groups[i]), names[i]);
        die_unless_ok(objcg_set_max(groups[i], 8 << 20), names[i]);
    }
    for (int i = 0; i < NR_TENANTS; i++) {
        objcg_memcg_t before;
        die_unless_ok(objcg_enter(groups[i], &before), names[i]);
        size_t nr_rows = read_rows(&rows[i], nr_wanted[i]);
        die_unless_ok(objcg_leave(before), names[i]);
        printf("%s: %zu of %zu rows%s\n", names[i], nr_rows, nr_wanted[i], nr_rows < nr_wanted[i] ? ", out of memory" : "");
    }
    for (int i = 0; i < NR_TENANTS; i++) {
        struct objcg_stat stat;
        struct objcg_events events;
        die_unless_ok(objcg_stat(groups[i], &stat, sizeof stat), names[i]);
        die_unless_ok(objcg_events(groups[i], &events, sizeof events), names[i]);
        printf("%s holds %llu objects in %llu KiB; refused: %llu\n", names[i], (unsigned long long)stat.slab_objects,
               (unsigned long long)stat.slab_bytes / 1024, (unsigned long long)events.oom);
    }
    for (int i = 0; i < NR_TENANTS; i++) {
        free_rows(rows[i]);
        die_unless_ok(objcg_delete(groups[i]), names[i]);
    }
    return 0;
}
