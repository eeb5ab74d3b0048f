//! x
use objcg::{Memcg, Objcg};
#[global_allocator]
static GLOBAL: Objcg = Objcg;
#[test]
fn smoke() {
    let g = Memcg::root().create("g").unwrap();
    let v: Vec<Vec<u8>> = g.scope(|| (0..10000).map(|i| vec![0u8; i % 3000]).collect());
    println!("{:?} {:?} {}", g.stat(), g, g.stat().total_bytes());
    assert_eq!(g.usage(), g.stat().total_bytes());
    let h = std::thread::spawn(move || drop(v));
    h.join().unwrap();
    println!("{:?} {:?} {}", g.stat(), g, g.stat().total_bytes());
    g.drain();
    assert_eq!(g.usage(), 0);
    let mut big = g.scope(|| vec![1u8; 100 << 20]);
    big.reserve(1000 << 20);
    println!("{:?}", g);
    drop(big);
    g.drain();
    assert_eq!(g.usage(), 0);
}
