/* The rules of malloc and its kin, as glibc has them. */
#define _GNU_SOURCE
#include <errno.h>
#include <malloc.h>
#include <unistd.h>

#include "check.h"

enum { UNTOUCHED = 12345 };

/* Weak: a libc that is older than C23 has none, and the program is linked without this library when it is preloaded. */
__attribute__((weak)) void free_sized(void *address, size_t nr_bytes);
__attribute__((weak)) void free_aligned_sized(void *address, size_t align, size_t nr_bytes);

/* Sizes of every kind: classes, pages, mappings of their own. */
static const size_t SIZES[] = { 0, 1, 7, 8, 15, 16, 17, 24, 40, 100, 1000, 2047, 2048, 4096, 5000, 32768, 32769, 100000, 5000000, 40000000 };
enum { NR_SIZES = sizeof SIZES / sizeof *SIZES };

/* Not known to the compiler, so that it warns of nothing. */
static size_t huge(size_t below)
{
    volatile size_t all = SIZE_MAX;
    return all - below;
}

static int is_multiple(const void *address, size_t align)
{
    return (uintptr_t)address % align == 0;
}

static void is_filled(const unsigned char *bytes, size_t nr_bytes, unsigned char fill)
{
    for (size_t i = 0; i < nr_bytes; i++)
        CHECK(bytes[i] == fill);
}

static void memory_of_every_size_is_aligned_and_usable(void)
{
    void *all[NR_SIZES];
    for (size_t i = 0; i < NR_SIZES; i++) {
        all[i] = malloc(SIZES[i]);
        CHECK(all[i] && is_multiple(all[i], 16));
        CHECK(malloc_usable_size(all[i]) >= SIZES[i]);
        memset(all[i], (int)i, malloc_usable_size(all[i]));
    }
    for (size_t i = 0; i < NR_SIZES; i++) {
        is_filled(all[i], malloc_usable_size(all[i]), (unsigned char)i);
        free(all[i]);
    }
    CHECK(malloc_usable_size(NULL) == 0);
}

static void nothing_has_an_address_of_its_own(void)
{
    void *a = malloc(0), *b = malloc(0), *c = calloc(0, 8), *d = calloc(8, 0);
    CHECK(a && b && c && d && a != b && b != c && c != d && a != d);
    free(a), free(b), free(c), free(d);
}

static void too_much_is_refused_with_enomem(void)
{
    const size_t sizes[] = { huge(0), huge(16), (size_t)PTRDIFF_MAX + 1, (size_t)PTRDIFF_MAX, (size_t)1 << 60 };
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        errno = UNTOUCHED;
        CHECK(!malloc(sizes[i]) && errno == ENOMEM);
        errno = UNTOUCHED;
        CHECK(!calloc(sizes[i], 1) && errno == ENOMEM);
        errno = UNTOUCHED;
        CHECK(!aligned_alloc(64, sizes[i]) && errno == ENOMEM);
        errno = UNTOUCHED;
        CHECK(!valloc(sizes[i]) && errno == ENOMEM);
        errno = UNTOUCHED;
        CHECK(!pvalloc(sizes[i]) && errno == ENOMEM);
        errno = UNTOUCHED;
        CHECK(!realloc(NULL, sizes[i]) && errno == ENOMEM);
    }
}

static void products_that_overflow_are_refused(void)
{
    void *kept = malloc(100);
    memset(kept, 7, 100);
    errno = UNTOUCHED;
    CHECK(!calloc(huge(0) / 2, 3) && errno == ENOMEM);
    errno = UNTOUCHED;
    CHECK(!calloc(huge(0) >> 31, huge(0) >> 31) && errno == ENOMEM);
    errno = UNTOUCHED;
    CHECK(!reallocarray(kept, huge(0) >> 31, huge(0) >> 31) && errno == ENOMEM);
    is_filled(kept, 100, 7);
    free(kept);
}

static void calloc_gives_zeros_where_others_were(void)
{
    for (size_t i = 0; i < NR_SIZES; i++) {
        for (int round = 0; round < 3; round++) {
            unsigned char *bytes = calloc(SIZES[i], 1);
            CHECK(bytes && is_multiple(bytes, 16));
            is_filled(bytes, SIZES[i], 0);
            memset(bytes, 255, malloc_usable_size(bytes));
            free(bytes);
        }
    }
}

static void realloc_keeps_what_fits(void)
{
    for (size_t i = 0; i < NR_SIZES; i++) {
        for (size_t k = 0; k < NR_SIZES; k++) {
            size_t nr_kept = SIZES[i] < SIZES[k] ? SIZES[i] : SIZES[k];
            unsigned char *bytes = malloc(SIZES[i]);
            memset(bytes, 9, SIZES[i]);
            bytes = realloc(bytes, SIZES[k]);
            if (SIZES[k] == 0) {
                CHECK(!bytes);
                continue;
            }
            CHECK(bytes && is_multiple(bytes, 16) && malloc_usable_size(bytes) >= SIZES[k]);
            is_filled(bytes, nr_kept, 9);
            memset(bytes, 8, SIZES[k]);
            free(bytes);
        }
    }
}

static void realloc_of_null_allocates_and_to_nothing_frees(void)
{
    struct mallinfo2 before = mallinfo2();
    for (int i = 0; i < 1000; i++) {
        void *memory = realloc(NULL, 1000000);
        CHECK(memory);
        errno = UNTOUCHED;
        CHECK(!realloc(memory, 0) && errno == UNTOUCHED);
    }
    struct mallinfo2 after = mallinfo2();
    CHECK(after.uordblks < before.uordblks + 2000000);
}

static void a_refused_realloc_leaves_the_object(void)
{
    unsigned char *bytes = malloc(1000);
    memset(bytes, 3, 1000);
    errno = UNTOUCHED;
    CHECK(!realloc(bytes, huge(4096)) && errno == ENOMEM);
    is_filled(bytes, 1000, 3);
    free(bytes);
}

static void memory_is_aligned_as_asked(void)
{
    for (size_t align = 1; align <= (size_t)8 << 20; align *= 2) {
        for (size_t i = 0; i < NR_SIZES - 1; i++) {
            void *a = aligned_alloc(align, SIZES[i]), *b = memalign(align, SIZES[i]), *c = &errno;
            CHECK(a && b && is_multiple(a, align) && is_multiple(b, align));
            CHECK(is_multiple(a, 16) && is_multiple(b, 16) && a != b);
            errno = UNTOUCHED;
            int status = posix_memalign(&c, align, SIZES[i]);
            CHECK(errno == UNTOUCHED);
            if (align < sizeof(void *)) {
                CHECK(status == EINVAL && c == &errno);
            } else {
                CHECK(status == 0 && is_multiple(c, align) && malloc_usable_size(c) >= SIZES[i]);
                memset(c, 1, SIZES[i]);
                free_aligned_sized(c, align, SIZES[i]);
            }
            a = realloc(a, SIZES[i] + 1);
            CHECK(a);
            free(a), free(b);
        }
    }
}

static void alignments_that_are_none_are_refused(void)
{
    void *place = &place;
    const size_t bad[] = { 0, 3, 24, 100, huge(0) };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        CHECK(posix_memalign(&place, bad[i], 8) == EINVAL && place == &place);
    CHECK(posix_memalign(&place, 64, huge(64)) == ENOMEM && place == &place);
    CHECK(posix_memalign(&place, (size_t)1 << 62, 8) == ENOMEM && place == &place);
    /* memalign rounds up, as in glibc. */
    void *rounded = memalign(24, 100);
    CHECK(rounded && is_multiple(rounded, 32));
    free(rounded);
    errno = UNTOUCHED;
    CHECK(!memalign(huge(0), 8) && errno == EINVAL);
}

static void valloc_and_pvalloc_give_pages(void)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    void *a = valloc(1), *b = pvalloc(1), *c = pvalloc(page + 1), *d = pvalloc(0);
    CHECK(is_multiple(a, page) && is_multiple(b, page) && is_multiple(c, page) && is_multiple(d, page));
    CHECK(malloc_usable_size(b) >= page && malloc_usable_size(c) >= 2 * page && malloc_usable_size(d) >= page);
    free(a), free(b), free(c), free(d);
}

static void free_leaves_errno_alone(void)
{
    void *all[NR_SIZES];
    for (size_t i = 0; i < NR_SIZES; i++)
        all[i] = malloc(SIZES[i]);
    errno = UNTOUCHED;
    for (size_t i = 0; i < NR_SIZES; i++)
        free(all[i]);
    free(NULL);
    free_sized(NULL, 8);
    free_sized(malloc(64), 64);
    malloc_trim(0);
    CHECK(errno == UNTOUCHED);
}

static void trim_gives_back_and_says_so(void)
{
    enum { NR = 2000 };
    static void *all[NR];
    for (int i = 0; i < NR; i++)
        memset(all[i] = malloc(10000), 1, 10000);
    for (int i = 0; i < NR; i++)
        free(all[i]);
    CHECK(malloc_trim(0) == 1);
    CHECK(mallinfo2().keepcost == 0);
    CHECK(malloc_trim(0) == 0);
}

static void mallinfo_counts(void)
{
    struct mallinfo2 before = mallinfo2();
    void *slab = malloc(1 << 14), *pages = malloc(1 << 20), *mapping = malloc(1 << 26);
    struct mallinfo2 after = mallinfo2();
    CHECK(after.uordblks >= before.uordblks + (1 << 14) + (1 << 20));
    CHECK(after.uordblks < before.uordblks + (1 << 21));
    CHECK(after.hblks == before.hblks + 1 && after.hblkhd == before.hblkhd + (1 << 26));
    CHECK(after.arena >= after.uordblks && after.fordblks == after.arena - after.uordblks);
    free(slab), free(pages), free(mapping);
    CHECK(mallinfo2().hblks == before.hblks);
}

static void malloc_info_writes_xml(void)
{
    char *text;
    size_t nr_bytes;
    FILE *stream = open_memstream(&text, &nr_bytes);
    errno = 0;
    CHECK(malloc_info(1, stream) == -1 && errno == EINVAL);
    CHECK(malloc_info(0, stream) == 0);
    fclose(stream);
    CHECK(strncmp(text, "<malloc version=\"", 17) == 0 && strstr(text, "<size to=\"") && strstr(text, "\n</malloc>\n"));
    free(text);
}

static void mallopt_accepts_what_glibc_knows(void)
{
    CHECK(mallopt(M_ARENA_MAX, 1) == 1 && mallopt(M_MMAP_THRESHOLD, 1 << 20) == 1 && mallopt(M_TRIM_THRESHOLD, 0) == 1);
    CHECK(mallopt(M_MXFAST, 64) == 1 && mallopt(M_PERTURB, 0) == 1);
    CHECK(mallopt(1000, 1) == 0 && mallopt(0, 1) == 0);
}

static const struct test_case CASES[] = {
    { "memory_of_every_size_is_aligned_and_usable", memory_of_every_size_is_aligned_and_usable },
    { "nothing_has_an_address_of_its_own", nothing_has_an_address_of_its_own },
    { "too_much_is_refused_with_enomem", too_much_is_refused_with_enomem },
    { "products_that_overflow_are_refused", products_that_overflow_are_refused },
    { "calloc_gives_zeros_where_others_were", calloc_gives_zeros_where_others_were },
    { "realloc_keeps_what_fits", realloc_keeps_what_fits },
    { "realloc_of_null_allocates_and_to_nothing_frees", realloc_of_null_allocates_and_to_nothing_frees },
    { "a_refused_realloc_leaves_the_object", a_refused_realloc_leaves_the_object },
    { "memory_is_aligned_as_asked", memory_is_aligned_as_asked },
    { "alignments_that_are_none_are_refused", alignments_that_are_none_are_refused },
    { "valloc_and_pvalloc_give_pages", valloc_and_pvalloc_give_pages },
    { "free_leaves_errno_alone", free_leaves_errno_alone },
    { "trim_gives_back_and_says_so", trim_gives_back_and_says_so },
    { "mallinfo_counts", mallinfo_counts },
    { "malloc_info_writes_xml", malloc_info_writes_xml },
    { "mallopt_accepts_what_glibc_knows", mallopt_accepts_what_glibc_knows },
};

int main(int argc, char **argv)
{
    return run_case(CASES, sizeof CASES / sizeof *CASES, argc, argv);
}
