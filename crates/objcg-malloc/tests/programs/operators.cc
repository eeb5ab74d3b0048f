// C++'s operators get their memory here, in all forms, and a group's limit is a std::bad_alloc.
#include <malloc.h>
#include <new>
#include <objcg.h>
#include <string>
#include <vector>

#include "check.h"

namespace {

struct alignas(256) Aligned {
    char bytes[300];
};

uint64_t objects_of(objcg_memcg_t group)
{
    struct objcg_stat stat;
    CHECK(objcg_stat(group, &stat, sizeof stat) == OBJCG_OK);
    return stat.slab_objects;
}

objcg_memcg_t enter(uint64_t max)
{
    objcg_memcg_t group;
    CHECK(objcg_create(objcg_root(), "tenant", &group) == OBJCG_OK && objcg_set_max(group, max) == OBJCG_OK);
    CHECK(objcg_enter(group, nullptr) == OBJCG_OK);
    return group;
}

void every_form_allocates_and_frees()
{
    objcg_memcg_t group = enter(OBJCG_UNLIMITED);
    const auto align = std::align_val_t(256);
    for (int round = 0; round < 100; round++) {
        void *all[] = {
            ::operator new(40),
            ::operator new[](40),
            ::operator new(40, std::nothrow),
            ::operator new[](40, std::nothrow),
            ::operator new(40, align),
            ::operator new[](40, align),
            ::operator new(40, align, std::nothrow),
            ::operator new[](40, align, std::nothrow),
        };
        for (void *memory : all)
            CHECK(memory && malloc_usable_size(memory) >= 40);
        for (int i = 4; i < 8; i++)
            CHECK(reinterpret_cast<uintptr_t>(all[i]) % 256 == 0);
        CHECK(objects_of(group) == 8);
        ::operator delete(all[0]);
        ::operator delete[](all[1]);
        ::operator delete(all[2], std::nothrow);
        ::operator delete[](all[3], std::nothrow);
        ::operator delete(all[4], align);
        ::operator delete[](all[5], align);
        ::operator delete(all[6], align, std::nothrow);
        ::operator delete[](all[7], align, std::nothrow);
        ::operator delete(::operator new(40), std::size_t(40));
        ::operator delete[](::operator new[](40), std::size_t(40));
        ::operator delete(::operator new(40, align), std::size_t(40), align);
        ::operator delete[](::operator new[](40, align), std::size_t(40), align);
        delete new Aligned;
        delete[] new std::string[10];
        CHECK(objects_of(group) == 0);
    }
}

void a_limit_is_a_bad_alloc()
{
    enter(1 << 20);
    bool is_caught = false;
    std::vector<std::string> rows;
    try {
        for (;;)
            rows.emplace_back(1000, 'x');
    } catch (const std::bad_alloc &) {
        is_caught = true;
    }
    CHECK(is_caught && rows.size() > 500);
    CHECK(!::operator new(2 << 20, std::nothrow));
    rows = {};
    std::string again(100000, 'x');
}

std::vector<char *> reserve;

void a_new_handler_is_called()
{
    enter(1 << 20);
    for (int i = 0; i < 9; i++)
        reserve.push_back(new char[100000]);
    std::set_new_handler([] {
        if (reserve.empty())
            throw std::bad_alloc();
        delete[] reserve.back();
        reserve.pop_back();
    });
    char *later[9];
    for (char *&memory : later)
        memory = new char[100000];
    CHECK(reserve.size() < 9);
    for (char *memory : later)
        delete[] memory;
}

const test_case CASES[] = {
    { "every_form_allocates_and_frees", every_form_allocates_and_frees },
    { "a_limit_is_a_bad_alloc", a_limit_is_a_bad_alloc },
    { "a_new_handler_is_called", a_new_handler_is_called },
};

} // namespace

int main(int argc, char **argv)
{
    return run_case(CASES, sizeof CASES / sizeof *CASES, argc, argv);
}
