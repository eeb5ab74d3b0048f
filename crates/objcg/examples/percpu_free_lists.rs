//! Buffers that are used again, from a free list of each CPU: `cargo run --release -p objcg --example percpu_free_lists`.
//!
//! A list is behind a lock, which a thread of another CPU wants only if it was moved in between. The lists are charged to the
//! group that they were made in, the buffers to whoever was the first to need them.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use objcg::{AllocError, Memcg, Objcg, PerCpu};

#[global_allocator]
static GLOBAL: Objcg = Objcg;

const NR_THREADS: usize = 4;
const NR_ROUNDS: usize = 200_000;
const MAX_FREE: usize = 16;

type Buffer = Box<[u8; 4096]>;

struct Buffers {
    free: PerCpu<Mutex<Vec<Buffer>>>,
    nr_made: AtomicU64,
}

impl Buffers {
    fn new() -> Result<Buffers, AllocError> {
        Ok(Buffers { free: PerCpu::with(|_| Mutex::new(Vec::new()))?, nr_made: AtomicU64::new(0) })
    }

    fn take(&self) -> Buffer {
        let recycled = self.free.get().lock().expect("no holder panics").pop();
        recycled.unwrap_or_else(|| {
            self.nr_made.fetch_add(1, Ordering::Relaxed);
            Box::new([0; 4096])
        })
    }

    fn give(&self, buffer: Buffer) {
        let mut free = self.free.get().lock().expect("no holder panics");
        if free.len() < MAX_FREE {
            free.push(buffer);
        }
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let pool = Memcg::root().create("pool")?;
    let buffers = pool.scope(Buffers::new)?;
    thread::scope(|scope| {
        for _ in 0..NR_THREADS {
            scope.spawn(|| {
                let _inside = pool.enter();
                (0..NR_ROUNDS).for_each(|_| buffers.give(buffers.take()));
            });
        }
    });
    println!("{} buffers made for {} uses", buffers.nr_made.load(Ordering::Relaxed), NR_THREADS * NR_ROUNDS);
    for (list, cpu) in buffers.free.iter().zip(0..) {
        println!("CPU {cpu}: {} free", list.lock().expect("no holder panics").len());
    }
    let stat = pool.stat();
    println!("charged to the pool: {} bytes of lists, {} of buffers", stat.percpu_bytes, stat.slab_bytes);
    Ok(())
}
