//! objcg.

use objcg::{Memcg, Objcg};

use crate::object::Object;

#[global_allocator]
static GLOBAL: Objcg = Objcg;

/// A walk over objcg's slabs finds an object that a group was charged with.
pub(crate) fn prove() -> Result<String, String> {
    let group = Group::top()?;
    let object = group.scope(|| Object::new(1000));
    let stat = group.0.stat();
    if stat.slab_objects != 1 || group.0.usage() < 1000 {
        return Err(format!("objcg finds {} objects of one, usage {}", stat.slab_objects, group.0.usage()));
    }
    drop(object);
    let left = group.0.stat().slab_objects;
    if left != 0 {
        return Err(format!("objcg still finds {left} objects of none"));
    }
    Ok(format!("a walk over objcg's slabs finds an object of 1000 B as {} B of its group", stat.slab_bytes))
}

/// A group, deleted when it goes.
pub(crate) struct Group(Memcg);

impl Group {
    /// A new group below the root.
    pub(crate) fn top() -> Result<Group, String> {
        let name = format!("top-{}", objcg::nr_groups());
        Memcg::root().create(&name).map(Group).map_err(|error| error.to_string())
    }

    /// The `nth` child.
    pub(crate) fn child(&self, nth: usize) -> Result<Group, String> {
        let mut buffer = [0u8; 20];
        self.0.create(name(nth, &mut buffer)).map(Group).map_err(|error| error.to_string())
    }

    pub(crate) fn limit(&self, max: u64) -> Result<(), String> {
        self.0.set_max(Some(max)).map(|_| ()).map_err(|error| error.to_string())
    }

    #[inline(always)]
    pub(crate) fn scope<R>(&self, work: impl FnOnce() -> R) -> R {
        self.0.scope(work)
    }

    /// Empties the stocks.
    pub(crate) fn drain(&self) {
        self.0.drain();
    }
}

/// A number as a name, without an allocation.
fn name(nth: usize, buffer: &mut [u8; 20]) -> &str {
    let mut at = buffer.len();
    let mut rest = nth;
    loop {
        at -= 1;
        buffer[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    std::str::from_utf8(&buffer[at..]).expect("digits")
}
