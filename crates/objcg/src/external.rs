//! Charges for memory that the allocator does not make.

use objcg_core::memcg as engine;

use crate::{Memcg, Refused};

pub use engine::{ExternalCharge, ExternalError};

impl Memcg {
    /// Charges `nr_bytes` to the group for memory that comes from elsewhere: a mapping, a GPU, a C library. It counts against limits
    /// like objects, is shown in [`stat`](Memcg::stat) as external bytes, and becomes the parent's when the group is deleted.
    /// Shrinkers may run to make room; nobody is killed. In the root nothing is counted.
    ///
    /// # Errors
    /// A limit refuses, or the process is out of memory. Nothing is left of a refused charge.
    ///
    /// ```
    /// # #[global_allocator] static GLOBAL: objcg::Objcg = objcg::Objcg;
    /// use objcg::Memcg;
    ///
    /// let tenant = Memcg::root().create("tenant")?;
    /// tenant.set_max(Some(1 << 20))?;
    /// let mut texture = tenant.charge_external(500_000)?;
    /// assert_eq!((tenant.usage(), tenant.stat().external_bytes), (500_000, 500_000));
    /// assert!(texture.resize(2 << 20).is_err());
    /// drop(texture);
    /// assert_eq!(tenant.usage(), 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn charge_external(&self, nr_bytes: u64) -> Result<ExternalCharge, ExternalError> {
        self.0.charge_external(nr_bytes)
    }

    /// Moves an external charge of another group to this one.
    ///
    /// # Errors
    /// A limit refuses: the charge stays where it was.
    ///
    /// ```
    /// # #[global_allocator] static GLOBAL: objcg::Objcg = objcg::Objcg;
    /// use objcg::Memcg;
    ///
    /// let (query, cache) = (Memcg::root().create("query")?, Memcg::root().create("cache")?);
    /// let mut mapping = query.charge_external(1 << 20)?;
    /// cache.adopt_external(&mut mapping)?;
    /// assert_eq!((query.usage(), cache.usage()), (0, 1 << 20));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn adopt_external(&self, charge: &mut ExternalCharge) -> Result<(), Refused> {
        charge.move_to(&self.0)
    }
}
