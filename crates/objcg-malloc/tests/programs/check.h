/* Checks that end the program with one line, and cases by name: `program NAME` runs one. */
#ifndef CHECK_H
#define CHECK_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(holds)                                                          \
    do {                                                                      \
        if (!(holds)) {                                                       \
            fprintf(stderr, "%s:%d: not %s\n", __FILE__, __LINE__, #holds);   \
            _Exit(1);                                                         \
        }                                                                     \
    } while (0)

struct test_case {
    const char *name;
    void (*run)(void);
};

/* `list` prints the names, so that the runner misses none. */
static inline int run_case(const struct test_case *cases, size_t nr_cases, int argc, char **argv)
{
    CHECK(argc == 2);
    for (size_t i = 0; i < nr_cases; i++) {
        if (strcmp(argv[1], "list") == 0) {
            puts(cases[i].name);
        } else if (strcmp(argv[1], cases[i].name) == 0) {
            cases[i].run();
            return 0;
        }
    }
    return strcmp(argv[1], "list") == 0 ? 0 : 2;
}

#endif
