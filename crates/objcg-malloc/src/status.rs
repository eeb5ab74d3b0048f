//! What functions of the C API return: 0, or why not.

#![expect(unsafe_code, reason = "a C function")]

use core::ffi::{CStr, c_char, c_int};

use objcg_core::memcg::{CreateError, DeleteError, LimitError};
use objcg_core::percpu::AllocError;

/// Each is `OBJCG_…` of `objcg.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub(crate) enum Status {
    Ok = 0,
    Invalid = 1,
    Stale = 2,
    Exists = 3,
    NotFound = 4,
    Name = 5,
    Limit = 6,
    NoMemory = 7,
    Root = 8,
    HasChildren = 9,
    Range = 10,
}

impl Status {
    const ALL: [(Status, &'static CStr); 11] = [
        (Status::Ok, c"no error"),
        (Status::Invalid, c"an argument is null, or out of its range"),
        (Status::Stale, c"no such group: it was deleted, or the handle was never one"),
        (Status::Exists, c"a group of that name exists already"),
        (Status::NotFound, c"there is none"),
        (Status::Name, c"not a name: it must have 1 to 255 bytes of UTF-8, and no '/'"),
        (Status::Limit, c"over the limit of a group"),
        (Status::NoMemory, c"the process is out of memory"),
        (Status::Root, c"the root cannot be deleted, nor limited"),
        (Status::HasChildren, c"the group has children; delete them first"),
        (Status::Range, c"the buffer is too small"),
    ];

    pub(crate) fn of(result: Result<(), Status>) -> c_int {
        result.err().unwrap_or(Status::Ok) as c_int
    }
}

impl From<CreateError> for Status {
    fn from(error: CreateError) -> Status {
        match error {
            CreateError::Name(_) => Status::Name,
            CreateError::Exists => Status::Exists,
            CreateError::ParentDeleted => Status::Stale,
            CreateError::Limit(_) => Status::Limit,
            CreateError::NoMemory => Status::NoMemory,
        }
    }
}

impl From<DeleteError> for Status {
    fn from(error: DeleteError) -> Status {
        match error {
            DeleteError::Root => Status::Root,
            DeleteError::Deleted => Status::Stale,
            DeleteError::HasChildren => Status::HasChildren,
        }
    }
}

impl From<LimitError> for Status {
    fn from(error: LimitError) -> Status {
        match error {
            LimitError::Root => Status::Root,
            LimitError::Deleted => Status::Stale,
        }
    }
}

impl From<AllocError> for Status {
    fn from(error: AllocError) -> Status {
        match error {
            AllocError::Size(_) | AllocError::Align(_) => Status::Invalid,
            AllocError::Limit(_) => Status::Limit,
            AllocError::NoMemory => Status::NoMemory,
        }
    }
}

/// What a status means, in English; never null.
#[unsafe(no_mangle)]
pub extern "C" fn objcg_strerror(status: c_int) -> *const c_char {
    let known = Status::ALL.iter().find(|(known, _)| *known as c_int == status);
    known.map_or(c"not a status of objcg", |(_, text)| *text).as_ptr()
}
