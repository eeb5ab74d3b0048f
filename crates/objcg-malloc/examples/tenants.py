"""Tenants in one Python process, each with a group of its own. The one that passes its limit gets a MemoryError.

    LD_PRELOAD=target/release/libobjcg_malloc.so PYTHONMALLOC=malloc python3 tenants.py
"""

import contextlib
import ctypes

objcg = ctypes.CDLL(None)  # what is preloaded is in the process
for function in objcg.objcg_root, objcg.objcg_current:
    function.restype = ctypes.c_uint64


def check(status):
    if status != 0:
        objcg.objcg_strerror.restype = ctypes.c_char_p
        raise RuntimeError(objcg.objcg_strerror(status).decode())


class Tenant:
    def __init__(self, name, limit):
        self.name, group = name, ctypes.c_uint64()
        check(objcg.objcg_create(ctypes.c_uint64(objcg.objcg_root()), name.encode(), ctypes.byref(group)))
        self.group = group
        check(objcg.objcg_set_max(group, ctypes.c_uint64(limit)))

    @contextlib.contextmanager
    def charged(self):
        """What is allocated inside is the tenant's."""
        before = ctypes.c_uint64()
        check(objcg.objcg_enter(self.group, ctypes.byref(before)))
        try:
            yield
        finally:
            check(objcg.objcg_leave(before))

    def usage(self):
        nr_bytes = ctypes.c_uint64()
        check(objcg.objcg_usage(self.group, ctypes.byref(nr_bytes)))
        return nr_bytes.value


def serve(tenant, nr_rows):
    """Does some work for a tenant, and knows nothing of limits but MemoryError."""
    rows = []
    try:
        with tenant.charged():
            for number in range(nr_rows):
                rows.append({"id": number, "text": f"{number:01000}"})
    except MemoryError:
        held, nr_read = tenant.usage(), len(rows)
        rows.clear()
        print(f"{tenant.name}: MemoryError after {nr_read:,} rows and {held >> 20} MiB")
    else:
        print(f"{tenant.name}: {len(rows):,} rows, {tenant.usage() >> 20} MiB")
    return rows


if __name__ == "__main__":
    work = {"ann": 5_000, "bob": 100_000, "cleo": 10_000}
    tenants = [Tenant(name, 32 << 20) for name in work]
    kept = [serve(tenant, work[tenant.name]) for tenant in tenants]
    print("and on:", sum(len(rows) for rows in kept), "rows are there")
