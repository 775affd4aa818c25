//! Envelopes that are for somebody or something else.

use ed25519_dalek::SigningKey;

use super::*;
use crate::runtime::tests::lone_host;

const SECRET: [u8; 32] = [5; 32];

fn passage() -> Passage {
    Passage {
        agent: "a".parse().unwrap(),
        migration: MigrationId([1; 16]),
        token: FencingToken(7),
        purpose: Purpose::Migration,
    }
}

/// Each differs from `passage` in what it is called after.
fn others() -> [(&'static str, Passage); 4] {
    [
        ("agent", Passage { agent: "b".parse().unwrap(), ..passage() }),
        ("migration", Passage { migration: MigrationId([2; 16]), ..passage() }),
        ("token", Passage { token: FencingToken(8), ..passage() }),
        ("purpose", Passage { purpose: Purpose::Standby, ..passage() }),
    ]
}

/// In what a passage may differ from the one that was sealed for, with the envelope opening all the same.
fn overlooked(context: impl Fn(&Passage) -> Vec<u8>) -> Vec<&'static str> {
    let target = SigningKey::from_bytes(&[1; 32]);
    let host = HostId(target.verifying_key().to_bytes());
    let sealed = envelope::seal(host, &context(&passage()), &SECRET, &[9; 32]).unwrap();
    let opens = |passage: &Passage| envelope::open(&target, &context(passage), &sealed).is_some();
    assert!(opens(&passage()), "it opens where it should");
    others().into_iter().filter(|(_, other)| opens(other)).map(|(what, _)| what).collect()
}

#[test]
fn an_envelope_opens_for_its_agent_migration_token_and_purpose_alone() {
    assert_eq!(overlooked(Passage::context), [] as [&str; 0]);
}

/// What is planted here is found by the test above: contexts that leave something out.
#[test]
fn an_envelope_that_is_bound_to_less_is_noticed() {
    let without = |what: &'static str| {
        move |passage: &Passage| {
            let mut passage = passage.clone();
            let fixed = super::tests::passage();
            match what {
                "agent" => passage.agent = fixed.agent,
                "migration" => passage.migration = fixed.migration,
                "token" => passage.token = fixed.token,
                _ => passage.purpose = fixed.purpose,
            }
            passage.context()
        }
    };
    for what in ["agent", "migration", "token", "purpose"] {
        assert_eq!(overlooked(without(what)), [what]);
    }
}

/// Rows are sealed and opened by hosts; of an envelope that is for something else nothing is stored.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_takes_no_key_out_of_an_envelope_for_another() {
    let host = lone_host().await;
    let key = EntityKey::from_secret(&SECRET);
    let row = |row| vec![RowFrame { change: 1, row: Row::EntityKey(row) }];
    let sealed = host.sealed(row(EntityKeyRow::Whole(key.clone())), host.host(), &passage());
    assert_eq!(host.opened(sealed.clone(), &passage()), Ok(row(EntityKeyRow::Whole(key.clone()))));
    for (what, other) in others() {
        assert!(host.opened(sealed.clone(), &other).is_err(), "another {what}");
    }
    let elsewhere = host.sealed(row(EntityKeyRow::Whole(key.clone())), HostId(stranger()), &passage());
    assert!(host.opened(elsewhere, &passage()).is_err(), "another host");
    let Row::EntityKey(EntityKeyRow::Sealed { envelope, .. }) = &sealed[0].row else { panic!("{sealed:?}") };
    let public = EntityKey::from_secret(&[6; 32]).public();
    let swapped = row(EntityKeyRow::Sealed { public, envelope: envelope.clone() });
    assert!(host.opened(swapped, &passage()).is_err(), "another key than it says");
    assert!(host.opened(row(EntityKeyRow::Whole(key)), &passage()).is_err(), "in the clear");
    host.stop().await;
}

fn stranger() -> [u8; 32] {
    SigningKey::from_bytes(&[8; 32]).verifying_key().to_bytes()
}
