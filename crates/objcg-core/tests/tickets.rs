//! Tickets of groups: one that is none's, or none's any more, changes nothing for whoever has the slot now.

use objcg_core::memcg::Memcg;

#[test]
fn asking_with_a_stale_ticket_takes_nobody_a_handle_away() {
    let root = Memcg::root().ticket();
    let group = Memcg::root().create("tickets").expect("a new name");
    let ticket = group.ticket();
    let stale = ticket.wrapping_add(1 << u32::BITS);
    for nobodys in [0, stale, u64::from(root as u32), u64::MAX] {
        // More often than there are handles: the last one's end would delete the group, or the root.
        for _ in 0..8 {
            assert!(nobodys == root || Memcg::of_ticket(nobodys).is_none(), "{nobodys:#x}");
        }
    }
    assert!(!group.is_deleted());
    assert_eq!(Memcg::of_ticket(ticket).as_ref(), Some(&group));
    assert_eq!(Memcg::root().child("tickets").as_ref(), Some(&group));
}
