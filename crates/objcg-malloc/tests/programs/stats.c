/* Prints the allocator's figures while one object of 20,000 bytes lives. */
#include <malloc.h>
#include <stdlib.h>

int main(void)
{
    void *volatile object = malloc(20000);
    malloc_stats();
    free(object);
    return 0;
}
