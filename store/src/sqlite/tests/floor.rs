//! temp
use super::fixture::{Desk, Place, message};
use crate::sqlite::lock::beside;
use crate::sqlite::{SqliteMode, SqliteStore};
use godwit_core::store::{RuntimeStore, StoreError, UnitFailure};

#[tokio::test]
async fn floor() {
    let place = Place::new();
    let store = place.open(SqliteMode::Exclusive);
    let mut desk = Desk::new(&store, "a").await;
    let state: Vec<u8> = (0..1024u32).map(|n| n.wrapping_mul(2654435761) as u8).collect();
    let mut answered = 0;
    for n in 0..60u8 {
        let mut s = state.clone();
        s[0] = n;
        let unit = desk.ask(message(&desk.owner.agent, &[n; 3000]), &s);
        let outcome = store.commit_turns(unit).await;
        match outcome.failure {
            None => answered += 1,
            Some(UnitFailure::Store(StoreError::Full)) => {
                let copy = Place::new();
                for suffix in ["", "-wal"] {
                    std::fs::copy(beside(&place.path(), suffix), beside(&copy.path(), suffix)).unwrap();
                }
                let reader = SqliteStore::open_read_only(&copy.path()).unwrap();
                let row = reader.agent(&desk.owner.agent).await.unwrap().unwrap();
                println!("FULL after {answered}: on disk {}", row.revision);
                assert_eq!(row.revision.0, answered);
                assert_eq!(
                    reader.image(&desk.owner.agent).await.unwrap().unwrap().check(),
                    Ok(())
                );
                // goes on
                let mut desk = Desk::take(&store, desk.owner.incarnation, &desk.owner.agent).await;
                desk.asked(&store, b"x", &state).await;
                return;
            }
            Some(other) => {
                println!("OTHER after {answered}: {other:?}");
                return;
            }
        }
    }
    println!("NO FAULT");
}
