//! The mutations: for each model, what would break the protocol that it is about.
//!
//! A mutation is a text of one file of the engine, found exactly once, and what takes its place. `docs/testing/models.md` says
//! what each model shows, and which orderings no model can test.

pub(super) struct Mutation {
    /// Under `crates/objcg-core/src`.
    pub(super) file: &'static str,
    pub(super) from: &'static str,
    pub(super) to: &'static str,
    /// The loom test that must fail.
    pub(super) model: &'static str,
    /// What is broken.
    pub(super) breaks: &'static str,
}

const LOCK: &str = "sync/lock.rs";
const GUARDS: &str = "sync::lock::models::loom_lock_guards_its_data";
const SLEEPERS: &str = "sync::lock::models::loom_lock_wakes_every_sleeper";
const TABLE: &str = "table.rs";
const BOUND: &str = "table::models::tests::loom_every_number_below_the_bound_has_a_slot";
const TWICE: &str = "table::models::tests::loom_no_slot_is_handed_out_twice";
const AFAR: &str = "cpu/afar.rs";
const SHEAF: &str = "cpu::afar::models::loom_i1_a_sheaf_is_taken_from_afar";
const SHEAF_IN_PLACE: &str = "cpu::afar::models::loom_i1_a_sheaf_is_taken_from_afar_while_its_top_moves_in_place";
const DRAIN: &str = "cpu::afar::models::loom_i1_a_stock_is_drained_from_afar";
const COUNTER: &str = "memcg/page_counter.rs";
const LIMIT_GONE: &str = "memcg::models::loom_i3_no_charge_lands_under_a_limit_that_is_gone";
const PIN: &str = "memcg/pin.rs";
const FILLED_IN: &str = "memcg::models::loom_i4_who_pins_a_slot_sees_it_filled_in";
const LAST_HOLDER: &str = "memcg::models::loom_i4_the_last_holder_sees_what_the_others_did";
const STOCK: &str = "memcg/stock.rs";
const VESSEL: &str = "memcg/objcg.rs";
const EXTS: &str = "slab/obj_exts.rs";
const SOLE: &str = "slab::obj_exts::models::loom_i1_sole_owner_stays_the_others_while_a_vector_comes";
const GIVEN_AWAY: &str = "slab::obj_exts::models::loom_i1_two_objects_are_given_away_at_once";
const GOES_BACK: &str = "slab::obj_exts::models::loom_i1_an_object_goes_back_while_a_vector_comes";
const PERCPU: &str = "percpu.rs";
const PERCPU_CHUNK: &str = "percpu/chunk.rs";
const PERCPU_STATE: &str = "percpu/state.rs";
const PAGES: &str = "percpu::models::loom_percpu_pages_go_back_while_others_allocate";
const TRIMS: &str = "percpu::models::loom_percpu_two_trims_at_once";
const FREES: &str = "percpu::models::loom_percpu_two_frees_past_the_bound";
const VISITED: &str = "percpu::models::loom_percpu_owners_are_visited_while_pages_go_back";
const USERS: &str = "memcg/models.rs";
const FOUND: &str = "memcg::models::loom_i4_a_found_group_is_alive";
const REDEEMED: &str = "memcg::models::loom_i4_a_redeemed_ticket_keeps_its_group";

pub(super) const MUTATIONS: &[Mutation] = &[
    Mutation {
        file: LOCK,
        from: "(FREE, HELD, Ordering::Acquire, Ordering::Relaxed).is_err()",
        to: "(FREE, HELD, Ordering::Relaxed, Ordering::Relaxed).is_err()",
        model: GUARDS,
        breaks: "a lock taken at once does not acquire",
    },
    Mutation {
        file: LOCK,
        from: "self.word.swap(CONTENDED, Ordering::Acquire)",
        to: "self.word.swap(CONTENDED, Ordering::Relaxed)",
        model: GUARDS,
        breaks: "a lock waited for does not acquire",
    },
    Mutation {
        file: LOCK,
        from: "self.word.swap(FREE, Ordering::Release)",
        to: "self.word.swap(FREE, Ordering::Relaxed)",
        model: GUARDS,
        breaks: "an unlock does not release",
    },
    Mutation {
        file: LOCK,
        from: "self.word.swap(FREE, Ordering::Release) == CONTENDED",
        to: "self.word.swap(FREE, Ordering::Release) == HELD",
        model: SLEEPERS,
        breaks: "an unlock wakes when nobody sleeps, and not when somebody does",
    },
    Mutation {
        file: LOCK,
        from: "while self.word.swap(CONTENDED, Ordering::Acquire) != FREE {",
        to: "while self.word.compare_exchange(FREE, HELD, Ordering::Acquire, Ordering::Relaxed).is_err()\n            && \
             self.word.swap(CONTENDED, Ordering::Acquire) != FREE\n        {",
        model: SLEEPERS,
        breaks: "who has slept takes the lock as if nobody else slept",
    },
    Mutation {
        file: TABLE,
        from: "chunk.store(new_chunk()?.cast(), Ordering::Release);",
        to: "chunk.store(new_chunk()?.cast(), Ordering::Relaxed);\n                \
             self.nr_made.store(idx + 1, Ordering::Relaxed);",
        model: BOUND,
        breaks: "a number is announced before its chunk",
    },
    Mutation {
        file: TABLE,
        from: "self.nr_made.store(idx + 1, Ordering::Release);",
        to: "self.nr_made.store(idx + 1, Ordering::Relaxed);",
        model: BOUND,
        breaks: "the bound does not release the chunk below it",
    },
    Mutation {
        file: TABLE,
        from: "self.nr_made.load(Ordering::Acquire)",
        to: "self.nr_made.load(Ordering::Relaxed)",
        model: BOUND,
        breaks: "a walk does not acquire the chunks below the bound",
    },
    Mutation {
        file: TABLE,
        from: "free.first = self.get(idx).next_free().load(Ordering::Relaxed);",
        to: "",
        model: TWICE,
        breaks: "a slot stays free when it is handed out",
    },
    Mutation {
        file: AFAR,
        from: "        fence();\n",
        to: "",
        model: SHEAF,
        breaks: "the top is looked at while sections may still move it",
    },
    Mutation {
        file: AFAR,
        from: "if let Some(drift) = drift(word.load(Ordering::Acquire)) {",
        to: "let drift = drift(word.load(Ordering::Acquire)).unwrap_or(0);\n        {",
        model: SHEAF,
        breaks: "a section that wrote over the stopper is overlooked",
    },
    Mutation {
        file: AFAR,
        from: "return top.wrapping_add_signed(drift);",
        to: "return top;",
        model: SHEAF_IN_PLACE,
        breaks: "a section that moved the stopper is overlooked",
    },
    Mutation {
        file: AFAR,
        from: "            word.store(stopper, Ordering::Relaxed);\n",
        to: "",
        model: SHEAF_IN_PLACE,
        breaks: "a stopper that was moved stays where it is",
    },
    Mutation {
        file: AFAR,
        from: "guard.store(1, Ordering::SeqCst);",
        to: "",
        model: DRAIN,
        breaks: "the guard is not set",
    },
    Mutation {
        file: AFAR,
        from: "if fence() {",
        to: "{",
        model: DRAIN,
        breaks: "the words are changed while a section has read the guard as 0",
    },
    Mutation {
        file: AFAR,
        from: "guard.store(0, Ordering::Release);",
        to: "guard.store(0, Ordering::Relaxed);",
        model: DRAIN,
        breaks: "sections that run again see the words from before",
    },
    Mutation {
        file: COUNTER,
        from: "let mut word = self.usage.load(Ordering::Acquire);\n        loop {\n            let Some(new)",
        to: "let mut word = self.usage.load(Ordering::Relaxed);\n        loop {\n            let Some(new)",
        model: LIMIT_GONE,
        breaks: "who sees the version does not see its limit",
    },
    Mutation {
        file: COUNTER,
        from: "self.usage.fetch_add(VERSION, Ordering::Release);",
        to: "self.usage.fetch_add(VERSION, Ordering::Relaxed);",
        model: LIMIT_GONE,
        breaks: "the version does not release its limit",
    },
    Mutation {
        file: COUNTER,
        from: "self.usage.fetch_add(VERSION, Ordering::Release);",
        to: "",
        model: LIMIT_GONE,
        breaks: "a new limit leaves the usage word as it was",
    },
    Mutation {
        file: COUNTER,
        from: "self.usage.compare_exchange_weak(word, word + nr_bytes, Ordering::Relaxed, Ordering::Acquire)",
        to: "Ok::<u64, u64>(self.usage.fetch_add(nr_bytes, Ordering::Relaxed))",
        model: "memcg::page_counter::models::loom_i3_usage_never_passes_max",
        breaks: "two charges that compared with one usage both succeed",
    },
    Mutation {
        file: COUNTER,
        from: "self.usage.fetch_sub(nr_bytes, Ordering::Relaxed)",
        to: "{\n            let before = self.usage.load(Ordering::Relaxed);\n            \
             self.usage.store(before - nr_bytes, Ordering::Relaxed);\n            before\n        }",
        model: "memcg::page_counter::models::loom_i1_charges_and_returns_balance",
        breaks: "a return overwrites a charge",
    },
    Mutation {
        file: PIN,
        from: "| 1, Ordering::Release);",
        to: "| 1, Ordering::Relaxed);",
        model: FILLED_IN,
        breaks: "a slot's new life does not release what it is filled with",
    },
    Mutation {
        file: PIN,
        from: "(word, word + 1, Ordering::Acquire, Ordering::Relaxed)",
        to: "(word, word + 1, Ordering::Relaxed, Ordering::Relaxed)",
        model: FILLED_IN,
        breaks: "a pin does not acquire what its slot is filled with",
    },
    Mutation {
        file: PIN,
        from: "self.0.fetch_sub(1, Ordering::AcqRel)",
        to: "self.0.fetch_sub(1, Ordering::Release)",
        model: LAST_HOLDER,
        breaks: "the last pin's end does not acquire",
    },
    Mutation {
        file: PIN,
        from: "self.0.fetch_sub(1, Ordering::AcqRel)",
        to: "self.0.fetch_sub(1, Ordering::Acquire)",
        model: LAST_HOLDER,
        breaks: "a pin's end does not release",
    },
    Mutation {
        file: PIN,
        from: " || word & DEAD != 0 ",
        to: " ",
        model: "memcg::pin::models::loom_i4_try_get_against_delete",
        breaks: "the dead can be pinned",
    },
    Mutation {
        file: PIN,
        from: "word >> GENERATION_SHIFT != u64::from(generation) || ",
        to: "",
        model: "memcg::pin::models::loom_i4_generation_guards_reuse",
        breaks: "a ticket is good for the slot's next life",
    },
    Mutation {
        file: STOCK,
        from: "self.0.compare_exchange(old, new, Ordering::AcqRel, Ordering::Relaxed)",
        to: "self.0.compare_exchange(old, new, Ordering::Relaxed, Ordering::Relaxed)",
        model: "memcg::models::loom_i3_drained_bytes_were_charged_before",
        breaks: "a refill does not release the charge",
    },
    Mutation {
        file: STOCK,
        from: "self.0.compare_exchange(old, new, Ordering::AcqRel, Ordering::Relaxed).map(|_| ())",
        to: "{\n            let _old = old;\n            self.0.store(new, Ordering::Release);\n            Ok(())\n        }",
        model: "memcg::stock::tests::models::loom_i1_stock_consume_against_drain",
        breaks: "a word is overwritten, whatever came in between",
    },
    Mutation {
        file: STOCK,
        from: "Ok(()) => return excess,",
        to: "Ok(()) => return excess.and(None),",
        model: "memcg::stock::tests::models::loom_i2_stock_keeps_owners_apart",
        breaks: "who displaces another's bytes keeps them",
    },
    Mutation {
        file: VESSEL,
        from: "state & (FORWARDED | ATTACHED) == FORWARDED && self.charged(id) == 0",
        to: "state & FORWARDED == FORWARDED && self.charged(id) == 0",
        model: "memcg::models::loom_i4_a_vessel_stays_while_its_slot_has_it",
        breaks: "a vessel is freed while its group's slot still has it",
    },
    Mutation {
        file: VESSEL,
        from: "let _forwarding = self.forwarding.lock();\n        self.collect(id)",
        to: "self.collect(id)",
        model: "memcg::objcg::models::loom_i4_forwarding_against_free",
        breaks: "the last return looks at the vessel without the lock",
    },
    Mutation {
        file: VESSEL,
        from: "self.table.get(old).charged.fetch_sub(VESSEL_BYTES, Ordering::AcqRel) == VESSEL_BYTES",
        to: "let _old = old;\n        false",
        model: "memcg::objcg::models::loom_i4_two_frees_shorten_one_path",
        breaks: "a shortened path keeps the vessels that it no longer leads by",
    },
    Mutation {
        file: VESSEL,
        from: "        vessel.state.store(FORWARDED | ATTACHED | u64::from(to), Ordering::Release);\n",
        to: "        vessel.state.store(u64::from(to), Ordering::Release);\n",
        model: "memcg::objcg::models::loom_i4_charge_against_delete",
        breaks: "a deleted group's vessel is not marked as leading elsewhere",
    },
    Mutation {
        file: "slab/barn.rs",
        from: "let surplus = shelves.keep_empty(empty);",
        to: "drop(empty);\n        let surplus = None;",
        model: "slab::barn::models::loom_barn_keeps_every_sheaf_once",
        breaks: "a traded sheaf is lost",
    },
    Mutation {
        file: LOCK,
        from: "            self.lock_slow();\n        }\n        Guard {",
        to: "        }\n        Guard {",
        model: "slab::barn::models::loom_barn_keeps_every_sheaf_once",
        breaks: "two have the barn at once",
    },
    Mutation {
        file: EXTS,
        from: "slot.store(self.as_ptr(), Ordering::Release)",
        to: "slot.store(self.as_ptr(), Ordering::Relaxed)",
        model: SOLE,
        breaks: "a slab's new vector does not release its words",
    },
    Mutation {
        file: EXTS,
        from: "slot.load(Ordering::Acquire)",
        to: "slot.load(Ordering::Relaxed)",
        model: SOLE,
        breaks: "a free does not acquire a slab's new vector",
    },
    Mutation {
        file: EXTS,
        from: "word.store(sole, Ordering::Relaxed)",
        to: "word.store(0, Ordering::Relaxed)",
        model: SOLE,
        breaks: "a slab's new vector forgets its sole owner",
    },
    Mutation {
        file: EXTS,
        from: "sole != 0 && is_taken(*obj_idx)",
        to: "sole != 0",
        model: GOES_BACK,
        breaks: "a slab's new vector gives the sole owner what is free",
    },
    Mutation {
        file: EXTS,
        from: "    taken.for_each(|(word, _)| word.store(sole, Ordering::Relaxed));\n    \
               slots.for_each(|slot| fresh.store(slot));",
        to: "    slots.for_each(|slot| fresh.store(slot));\n    \
             taken.for_each(|(word, _)| word.store(sole, Ordering::Relaxed));",
        model: GIVEN_AWAY,
        breaks: "a slab's new vector is seen before it is filled",
    },
    Mutation {
        file: USERS,
        from: "(nr_users > 0).then(|| nr_users + 1)",
        to: "Some(nr_users + 1)",
        model: REDEEMED,
        breaks: "a ticket makes a user of a group that has none",
    },
    Mutation {
        file: USERS,
        from: "self.nr_users.load(Ordering::Relaxed) > 0 || ",
        to: "",
        model: FOUND,
        breaks: "the last user's end is not looked at again under the lock",
    },
    Mutation {
        file: USERS,
        from: " || self.users_pin.load(Ordering::Relaxed) == 0",
        to: "",
        model: FOUND,
        breaks: "two that were last both give the users' pin back",
    },
    Mutation {
        file: USERS,
        from: "return;\n        }\n        if !self.pin.is_dead() {",
        to: "return;\n        }\n        {",
        model: "memcg::models::loom_i4_a_redeemed_ticket_against_delete",
        breaks: "the last user of a deleted group deletes it again",
    },
    Mutation {
        file: COUNTER,
        from: "self.charge_within(nr_bytes, |_| self.max_and_reserve())",
        to: "self.charge_within(nr_bytes, |_| UNLIMITED)",
        model: "memcg::page_counter::models::loom_i3_the_reserve_is_never_passed",
        breaks: "two charges that break the limit both succeed",
    },
    Mutation {
        file: COUNTER,
        from: "match self.usage.compare_exchange_weak(word, cleared, Ordering::AcqRel, Ordering::Acquire) {",
        to: "self.usage.store(cleared, Ordering::Release);\n            match Ok::<u64, u64>(word) {",
        model: "memcg::page_counter::models::loom_kill_against_drop_and_revival",
        breaks: "a revival overwrites a charge and its mark",
    },
    Mutation {
        file: COUNTER,
        from: "|word| if word & GRANTED == 0 { self.max() } else { self.max_and_reserve() }",
        to: "|_| self.max()",
        model: "memcg::page_counter::models::loom_a_grant_ends_within_the_limit",
        breaks: "a grant is not looked at",
    },
    Mutation {
        file: "memcg/gate.rs",
        from: "word & COUNT == 0 || word & COUNT == COUNT",
        to: "word & COUNT == COUNT",
        model: "memcg::gate::models::loom_unregistration_against_runs",
        breaks: "a gate that nobody holds any more lets runs in",
    },
    Mutation {
        file: "memcg/signal.rs",
        from: "self.0.fetch_or(SLEEPS, Ordering::Acquire)",
        to: "self.0.fetch_or(SLEEPS, Ordering::Relaxed)",
        model: "memcg::signal::models::loom_no_wake_is_lost",
        breaks: "who is going to sleep does not see the change that was before",
    },
    Mutation {
        file: "memcg/signal.rs",
        from: "sleepers: word & SLEEPS != 0",
        to: "sleepers: word & CALLS != 0",
        model: "memcg::signal::models::loom_who_misses_the_change_is_woken",
        breaks: "the changer looks at the wrong bit",
    },
    Mutation {
        file: PERCPU,
        from: "            let is_released = idle.release();\n            \
               let nr_bytes = idle.nr_pages() * PAGE_SIZE * self.nr_units();\n            \
               self.lock().put_idle(idle, is_released);\n",
        to: "            let nr_bytes = idle.nr_pages() * PAGE_SIZE * self.nr_units();\n            \
             let late = unsafe { core::ptr::read(&raw const idle) };\n            \
             self.lock().put_idle(idle, true);\n            \
             let is_released = late.release();\n",
        model: PAGES,
        breaks: "pages go back when their blocks were put back already",
    },
    Mutation {
        file: PERCPU,
        from: "        taken.zero(nr_units);\n",
        to: "",
        model: PAGES,
        breaks: "old bytes are handed out",
    },
    Mutation {
        file: PERCPU_CHUNK,
        from: "block.used_to = block.used_to.max(end);",
        to: "block.used_to = end;",
        model: PAGES,
        breaks: "a short allocation forgets how far its block was handed out before",
    },
    Mutation {
        file: PERCPU_CHUNK,
        from: "        self.take(granules_of(&blocks));\n",
        to: "",
        model: TRIMS,
        breaks: "blocks are not taken while their pages go back",
    },
    Mutation {
        file: PERCPU_CHUNK,
        from: "        self.starts.set(first * BLOCK_GRANULES);\n",
        to: "",
        model: TRIMS,
        breaks: "an allocation goes on in the held blocks behind it",
    },
    Mutation {
        file: LOCK,
        from: "            self.lock_slow();\n        }\n        Guard {",
        to: "        }\n        Guard {",
        model: TRIMS,
        breaks: "two change the maps at once",
    },
    Mutation {
        file: PERCPU_STATE,
        from: "        self.nr_idle -= blocks.len();\n",
        to: "",
        model: FREES,
        breaks: "held blocks count as idle",
    },
    Mutation {
        file: PERCPU,
        from: "let has_surplus = state.nr_idle() > bound;",
        to: "let has_surplus = state.nr_idle() > 2 * bound;",
        model: FREES,
        breaks: "idle pages past the bound stay",
    },
    Mutation {
        file: PERCPU_CHUNK,
        from: " && self.blocks.iter().all(|block| block.used_to == 0)",
        to: "",
        model: "percpu::models::loom_percpu_a_chunk_is_unmade_against_an_allocation",
        breaks: "a chunk that has idle pages is unmade",
    },
    Mutation {
        file: PERCPU_STATE,
        from: "let is_bare = chunk.is_bare();",
        to: "let is_bare = true;",
        model: "percpu::models::loom_percpu_a_whole_unit_is_allocated_while_pages_go_back",
        breaks: "a chunk is unmade while something is allocated in it",
    },
    Mutation {
        file: PERCPU_CHUNK,
        from: "        self.blocks[blocks.clone()].iter_mut().for_each(|block| block.is_held = true);\n",
        to: "",
        model: VISITED,
        breaks: "held blocks look like an allocation",
    },
    Mutation {
        file: PERCPU_CHUNK,
        from: "has_owners && !self.blocks[*block].is_held",
        to: "has_owners",
        model: VISITED,
        breaks: "a visit goes into held blocks",
    },
    Mutation {
        file: PERCPU,
        from: "self.lock().put_idle(idle, is_released);",
        to: "self.lock().put_idle(idle, true);",
        model: "percpu::models::loom_percpu_a_page_that_is_refused_keeps_its_bytes",
        breaks: "pages that the system refused are taken for zero",
    },
    Mutation {
        file: "memcg/signal.rs",
        from: "!(SLEEPS | callers)",
        to: "!(SLEEPS | CALLS | STATE_CALLS)",
        model: "memcg::signal::models::loom_an_event_does_not_take_the_call_of_a_mark",
        breaks: "an event takes the call of whoever waits for more",
    },
];
