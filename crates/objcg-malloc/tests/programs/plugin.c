/* A library that allocates while it is loaded and unloaded, and has thread-local memory of its own. */
#include <stdlib.h>
#include <string.h>

static __thread char own[100];
static char *made;

__attribute__((constructor)) static void load(void)
{
    made = calloc(1, 5000);
    memset(own, 1, sizeof own);
}

__attribute__((destructor)) static void unload(void)
{
    free(made);
}

void *plugin_make(void)
{
    own[0]++;
    return malloc(sizeof own);
}
