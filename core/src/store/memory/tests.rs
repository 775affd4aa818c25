//! The reference implementation honours the contract, and the suite notices stores that do not.
#![cfg(feature = "test-util")]

use std::collections::HashMap;
use std::ops::Range;

use super::*;
use crate::store::conformance::flawed::{Flaw, FlawedFactory};
use crate::store::conformance::{self, Opening, StoreFactory};

/// Stores that live as long as the factory.
#[derive(Default)]
struct Memory {
    stores: Mutex<HashMap<String, MemoryStore>>,
}

#[async_trait]
impl StoreFactory for Memory {
    async fn open(&self, name: &str, opening: Opening) -> Arc<dyn RuntimeStore> {
        let Opening { sharing, clock, quotas } = opening;
        let mut stores = self.stores.lock().unwrap();
        let store = stores.entry(name.to_owned()).or_insert_with(|| MemoryStore::new(sharing, clock, quotas));
        Arc::new(store.clone())
    }

    /// `GODWIT_SEED` replays one random sequence.
    #[expect(clippy::disallowed_methods, reason = "a test may be told its seed")]
    fn seeds(&self) -> Range<u64> {
        let seed = std::env::var("GODWIT_SEED").map(|seed| seed.parse::<u64>().unwrap());
        seed.map_or(1..65, |seed| seed..seed + 1)
    }
}

#[tokio::test]
async fn honours_the_contract() {
    conformance::run(Arc::new(Memory::default())).await;
}

#[tokio::test]
async fn the_suite_notices_every_flaw() {
    let seen = |failures: &[conformance::CaseFailure], case: &str| {
        failures.iter().any(|failure| failure.case == case)
    };
    for flaw in Flaw::ALL {
        let factory = FlawedFactory::new(Arc::new(Memory::default()), flaw);
        let failures = conformance::failures(Arc::new(factory)).await;
        for case in flaw.noticed_by() {
            assert!(seen(&failures, case), "{flaw:?} passes {case}: {failures:#?}");
        }
    }
}

#[test]
fn cases_have_names_of_their_own() {
    let cases = conformance::cases();
    let names: std::collections::BTreeSet<&str> = cases.iter().map(conformance::Case::name).collect();
    assert_eq!(names.len(), cases.len());
    for flaw in Flaw::ALL {
        let cases = flaw.noticed_by();
        assert!(!cases.is_empty() && cases.iter().all(|case| names.contains(case)), "{flaw:?}");
    }
}
