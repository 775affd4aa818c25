//! Which entry stays when grants and refusals of one agent arrive out of order.

use godwit_core::id::{Generation, Incarnation};
use godwit_core::lease::{GrantCause, SessionLease};

use super::*;

fn agent() -> AgentId {
    AgentId::parse("a").unwrap()
}

fn enter(directory: &Directory, token: u64) -> Owned {
    let token = FencingToken(token);
    let lease = Lease {
        agent: agent(),
        generation: Generation(1),
        incarnation: Incarnation(1),
        token,
        cause: GrantCause::Acquired,
    };
    directory.enter(lease, LeaseGuard::new(SessionLease::unlimited(), token))
}

fn token(directory: &Directory) -> Option<u64> {
    directory.owned(&agent()).map(|owned| owned.lease.token.0)
}

#[test]
fn a_later_grant_takes_the_place_of_an_older_one_and_never_the_other_way() {
    let directory = Directory::default();
    let first = enter(&directory, 5);
    let second = enter(&directory, 6);
    assert!(!first.guard.is_held(), "what acts under it stops");
    assert_eq!(enter(&directory, 5).lease.token, FencingToken(6), "its answer came late");
    assert!(second.guard.is_held());
    assert_eq!(token(&directory), Some(6));
}

#[test]
fn a_refusal_takes_the_lease_that_was_refused_and_no_successor() {
    let directory = Directory::default();
    enter(&directory, 5);
    let second = enter(&directory, 6);
    directory.lose_fenced(&agent(), FencingToken(5));
    directory.lose(&agent(), FencingToken(5));
    assert!(second.guard.is_held() && directory.take_lost().is_empty());
    directory.lose_fenced(&agent(), FencingToken(6));
    assert!(!second.guard.is_held());
    assert_eq!(token(&directory), None, "the next act asks for another");
    assert_eq!(directory.take_lost().len(), 1, "and it is told");
}
