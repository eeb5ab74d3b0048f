//! One tenant: its group, its cache, and what its requests do.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::body::Bytes;
use objcg::{Memcg, OomPolicy, ShrinkControl, Shrinker};
use quick_cache::Weighter;
use quick_cache::unsync::Cache;

use crate::{AnyError, working_set};

/// The limits of each tenant in bytes.
pub(crate) const MAX: u64 = 4 << 20;
pub(crate) const HIGH: u64 = 3 << 20;
/// What its cache may weigh, when nobody asks for it back.
const CACHE_BYTES: u64 = 1 << 20;
const VALUE_BYTES: usize = 8 << 10;
/// What the one that leaks keeps of a request, and how many values it reads beside.
const LEAK_BYTES: usize = 64 << 10;
const VALUES_A_LEAK: u64 = 4;
const HUGE_BYTES: usize = 10 << 30;
/// How many tasks the one that spawns without end makes in one poll, and what each holds.
const TASKS_A_POLL: usize = 8;
const TASK_BYTES: usize = 4 << 10;

pub(crate) struct Tenant {
    pub(crate) name: String,
    pub(crate) memcg: Memcg,
    /// The shrinker is called in the middle of any allocation: it tries the lock, and nothing waits inside.
    cache: Arc<Mutex<Cache<u64, Bytes, Bytewise>>>,
    leaked: Mutex<Vec<Vec<u8>>>,
    nr_requests: AtomicU64,
    tasks: Arc<Tasks>,
    reclaimed_bytes: Arc<AtomicU64>,
    /// Holds the group and the cache.
    _shrinker: Shrinker,
}

#[derive(Clone)]
struct Bytewise;

impl Weighter<u64, Bytes> for Bytewise {
    fn weight(&self, _: &u64, value: &Bytes) -> u64 {
        value.len() as u64
    }
}

/// How many tasks there are, and when the last one went.
struct Tasks {
    start: Instant,
    nr_living: AtomicU64,
    last_end_nanos: AtomicU64,
}

/// A living task.
struct Living(Arc<Tasks>);

impl Tenant {
    pub(crate) fn new(server: &Memcg, name: &str) -> Result<Tenant, AnyError> {
        let memcg = server.create(name)?;
        memcg.set_max(Some(MAX))?;
        memcg.set_high(Some(HIGH))?;
        memcg.set_oom_policy(Some(OomPolicy::Kill))?;
        // The tenant's books are its own.
        let _inside = memcg.clone().enter_owned();
        let cache = Cache::with_weighter(CACHE_BYTES as usize / VALUE_BYTES, CACHE_BYTES, Bytewise);
        let cache = Arc::new(Mutex::new(cache));
        let reclaimed_bytes = Arc::new(AtomicU64::new(0));
        let (shrinking, counting) = (Arc::clone(&cache), Arc::clone(&reclaimed_bytes));
        let shrinker = memcg.register_shrinker(move |control| {
            let nr_bytes = shrink(&shrinking, control);
            counting.fetch_add(nr_bytes, Ordering::Relaxed);
            nr_bytes
        });
        Ok(Tenant {
            name: name.to_owned(),
            memcg,
            cache,
            leaked: Mutex::default(),
            nr_requests: AtomicU64::new(0),
            tasks: Arc::new(Tasks {
                start: Instant::now(),
                nr_living: AtomicU64::new(0),
                last_end_nanos: AtomicU64::new(0),
            }),
            reclaimed_bytes,
            _shrinker: shrinker,
        })
    }

    /// What a good request does: it works with objects of its own, and reads the cache. What came of the work, and the value.
    pub(crate) fn serve(&self, key: u64) -> (u64, Bytes) {
        let number = self.nr_requests.fetch_add(1, Ordering::Relaxed);
        (working_set::work(number << 32 | key), self.read(key))
    }

    /// A value from the cache, or made and put there.
    fn read(&self, key: u64) -> Bytes {
        if let Some(value) = self.cache.lock().expect("nobody panics with it").get(&key) {
            return value.clone();
        }
        let value = Bytes::from((0..VALUE_BYTES as u64).map(|idx| (key ^ idx) as u8).collect::<Vec<_>>());
        self.cache.lock().expect("nobody panics with it").insert(key, value.clone());
        value
    }

    /// Uses the cache, and keeps memory that it never gives back: until the tenant is ended.
    pub(crate) fn leak(&self) {
        let bytes = vec![1; LEAK_BYTES];
        self.leaked.lock().expect("nobody panics with it").push(bytes);
        // Values that nobody has read yet.
        let number = self.nr_requests.fetch_add(1, Ordering::Relaxed);
        (0..VALUES_A_LEAK).for_each(|value| drop(self.read(number * VALUES_A_LEAK + value)));
    }

    /// Does all that one that leaks does, and gives the memory back.
    pub(crate) fn be_busy(&self) {
        self.leak();
        self.leaked.lock().expect("nobody panics with it").clear();
    }

    /// Asks for more than there is, and is told so.
    pub(crate) fn huge(&self) -> Result<usize, std::collections::TryReserveError> {
        let mut rows = Vec::<u8>::new();
        rows.try_reserve_exact(HUGE_BYTES)?;
        rows.resize(HUGE_BYTES, 1);
        Ok(rows.len())
    }

    /// Starts tasks that hold memory and never end: until the tenant is ended, and they with it.
    pub(crate) async fn spawn_for_ever(&self) {
        loop {
            for _ in 0..TASKS_A_POLL {
                let living = Living::new(&self.tasks);
                objcg::tokio::spawn(async move {
                    let _living = living;
                    let _rows = vec![1u8; TASK_BYTES];
                    std::future::pending::<()>().await;
                });
            }
            tokio::task::yield_now().await;
        }
    }

    pub(crate) fn reclaimed_bytes(&self) -> u64 {
        self.reclaimed_bytes.load(Ordering::Relaxed)
    }

    /// After the group was killed: lets go of all that the tenant keeps, waits until its tasks are gone, and lets it live on.
    /// Returns how long after the end of the last task its memory was back; `None` without tasks.
    pub(crate) async fn recover(&self) -> Option<Duration> {
        let nr_tasks = self.tasks.nr_living.load(Ordering::Acquire);
        self.memcg.scope(|| {
            drop(std::mem::take(&mut *self.leaked.lock().expect("nobody panics with it")));
            self.cache.lock().expect("nobody panics with it").clear();
        });
        while self.tasks.nr_living.load(Ordering::Acquire) > 0 {
            tokio::task::yield_now().await;
        }
        self.memcg.drain();
        while let Err(objcg::ReviveError::OverMax(_)) = self.memcg.revive() {
            // A request of it is still on its way out.
            tokio::task::yield_now().await;
            self.memcg.drain();
        }
        (nr_tasks > 0).then(|| self.tasks.since_last_end())
    }
}

/// Gives back what is wanted from the cache; nothing if somebody is using it, who may be this very thread.
fn shrink(cache: &Mutex<Cache<u64, Bytes, Bytewise>>, control: &ShrinkControl) -> u64 {
    let Ok(mut cache) = cache.try_lock() else { return 0 };
    let before = cache.weight();
    cache.set_capacity(before.saturating_sub(control.nr_bytes).max(VALUE_BYTES as u64));
    let after = cache.weight();
    cache.set_capacity(CACHE_BYTES);
    before - after
}

impl Tasks {
    fn since_last_end(&self) -> Duration {
        self.start.elapsed() - Duration::from_nanos(self.last_end_nanos.load(Ordering::Acquire))
    }
}

impl Living {
    fn new(tasks: &Arc<Tasks>) -> Living {
        tasks.nr_living.fetch_add(1, Ordering::Relaxed);
        Living(Arc::clone(tasks))
    }
}

impl Drop for Living {
    fn drop(&mut self) {
        self.0.last_end_nanos.store(self.0.start.elapsed().as_nanos() as u64, Ordering::Release);
        self.0.nr_living.fetch_sub(1, Ordering::Release);
    }
}
