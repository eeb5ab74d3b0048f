/* Each case is a fault that ends the program. */
#include "check.h"

/* Not known to the compiler. */
static void *volatile object;
static void *volatile neighbour;

static void take(size_t nr_bytes)
{
    object = malloc(nr_bytes);
    /* So that the slab does not go. */
    neighbour = malloc(nr_bytes);
    CHECK(object && neighbour);
}

static void *inside(size_t offset)
{
    return (char *)object + offset;
}

#define TWICE(name, nr_bytes)                     \
    static void name(void)                        \
    {                                             \
        take(nr_bytes);                           \
        free(object);                             \
        free(object);                             \
    }

#define INTERIOR(name, nr_bytes, offset)          \
    static void name(void)                        \
    {                                             \
        take(nr_bytes);                           \
        free(inside(offset));                     \
    }

#define RESIZE_FREED(name, nr_bytes, new_bytes)   \
    static void name(void)                        \
    {                                             \
        take(nr_bytes);                           \
        free(object);                             \
        object = realloc(object, new_bytes);      \
    }

TWICE(double_free_small, 48)
TWICE(double_free_large, 200000)
TWICE(double_free_huge, 50000000)
INTERIOR(interior_small, 48, 16)
INTERIOR(interior_odd, 48, 1)
INTERIOR(interior_large, 200000, 16)
INTERIOR(interior_page, 200000, 8192)
INTERIOR(interior_huge, 50000000, 4096)
RESIZE_FREED(realloc_of_freed_small, 48, 100000)
RESIZE_FREED(realloc_of_freed_small_in_place, 48, 40)
RESIZE_FREED(realloc_of_freed_large, 200000, 400000)
RESIZE_FREED(realloc_of_freed_huge, 50000000, 60000000)

static void foreign_stack(void)
{
    char local[64];
    object = local;
    free(inside(16));
}

static void foreign_static(void)
{
    static char bytes[64];
    object = bytes;
    free(object);
}

static void foreign_number(void)
{
    object = (void *)0x1230;
    free(object);
}

static void foreign_realloc(void)
{
    static char bytes[64];
    object = bytes;
    object = realloc(object, 100);
}

static void double_free_by_realloc_to_nothing(void)
{
    take(48);
    free(object);
    object = realloc(object, 0);
}

static const struct test_case CASES[] = {
    { "double_free_small", double_free_small },
    { "double_free_large", double_free_large },
    { "double_free_huge", double_free_huge },
    { "double_free_by_realloc_to_nothing", double_free_by_realloc_to_nothing },
    { "interior_small", interior_small },
    { "interior_odd", interior_odd },
    { "interior_large", interior_large },
    { "interior_page", interior_page },
    { "interior_huge", interior_huge },
    { "realloc_of_freed_small", realloc_of_freed_small },
    { "realloc_of_freed_small_in_place", realloc_of_freed_small_in_place },
    { "realloc_of_freed_large", realloc_of_freed_large },
    { "realloc_of_freed_huge", realloc_of_freed_huge },
    { "foreign_stack", foreign_stack },
    { "foreign_static", foreign_static },
    { "foreign_number", foreign_number },
    { "foreign_realloc", foreign_realloc },
};

int main(int argc, char **argv)
{
    return run_case(CASES, sizeof CASES / sizeof *CASES, argc, argv);
}
