//! How much one commit takes.

use super::*;
use crate::agent::state_reader;
use crate::id::{AgentId, Generation, Incarnation};
use crate::store::memory::MemoryStore;
use crate::time::SystemClock;

fn chain() -> Chain {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let agent = AgentId::parse("a").unwrap();
    let rows = Overlay::new(state_reader(Arc::new(MemoryStore::exclusive(clock.clone())), agent.clone()));
    let (generation, incarnation, token) = (Generation(1), Incarnation(1), FencingToken(1));
    let author = Author {
        owner: Owner { agent, generation, incarnation, token },
        host: HostId([7; 32]),
        plugin: Digest::ZERO,
        plugin_version: "1".into(),
        spec_revision: SpecRevision(1),
        clock,
    };
    let head = Head { revision: Revision(0), digest: Digest::ZERO, next_seq: Seq(1), time_ms: 1, token };
    Chain::new(Arc::new(author), &head, rows)
}

/// A turn without a snapshot that writes one row of so many bytes.
fn turn(bytes: usize) -> RanTurn {
    let state = vec![("k".to_owned(), Some(Bytes::from(vec![0; bytes])))];
    let effects = TurnEffects { state, ..TurnEffects::default() };
    RanTurn { effects, state: None, entry: None, now_ms: 1 }
}

#[tokio::test]
async fn a_chain_is_full_by_what_its_turns_write() {
    let mut chain = chain();
    for _ in 0..4 {
        assert!(!chain.is_full());
        chain.push_turn(Origin::Init, turn(CHAIN_BYTES_MAX / 4));
    }
    assert!(chain.is_full(), "rows count");
}

#[tokio::test]
async fn a_chain_is_full_by_the_number_of_its_turns() {
    let mut chain = chain();
    for _ in 0..CHAIN_TURNS_MAX {
        assert!(!chain.is_full());
        chain.push_turn(Origin::Init, turn(0));
    }
    assert!(chain.is_full());
}
