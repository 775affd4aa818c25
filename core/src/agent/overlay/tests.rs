//! Tests of what a turn sees of the turns before it.

use super::*;

/// Committed rows with the values of their keys.
struct Rows(BTreeMap<String, Bytes>);

impl StateRead for Rows {
    fn get(&self, key: &str) -> Result<Option<Bytes>, StateReadError> {
        Ok(self.0.get(key).cloned())
    }

    fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Vec<String>, StateReadError> {
        let keys = self.0.keys().filter(|key| key.starts_with(prefix));
        let keys = keys.filter(|key| after.is_none_or(|after| key.as_str() > after));
        Ok(keys.take(limit.min(PAGE_MAX)).cloned().collect())
    }

    fn timers(&self) -> Result<Vec<String>, StateReadError> {
        Ok(vec!["morning".into(), "noon".into()])
    }

    fn operations(&self) -> Result<Vec<OperationId>, StateReadError> {
        Ok(Vec::new())
    }

    fn entity_key(&self) -> Result<Option<EntityKey>, StateReadError> {
        Ok(None)
    }
}

fn write(key: &str, value: Option<&str>) -> (String, Option<Bytes>) {
    (key.to_owned(), value.map(|value| Bytes::from(value.to_owned())))
}

#[test]
fn a_turn_sees_what_the_turns_before_it_wrote_and_nothing_after_a_clear() {
    let committed = Rows(BTreeMap::from([("a".into(), "old".into()), ("b".into(), "old".into())]));
    let overlay = Overlay::new(Arc::new(committed));
    let state = vec![write("a", Some("new")), write("b", None), write("c", Some("new"))];
    let timer = crate::timer::NewTimer { at_ms: 1, payload: Bytes::new() };
    let timers = vec![("evening".to_owned(), Some(timer)), ("noon".to_owned(), None)];
    overlay.add(Revision(1), &TurnEffects { state, timers, ..TurnEffects::default() });
    overlay
        .add(Revision(2), &TurnEffects { state: vec![write("c", Some("newer"))], ..TurnEffects::default() });
    let get = |key: &str| overlay.get(key).unwrap();
    assert_eq!((get("a"), get("b"), get("c")), (Some("new".into()), None, Some("newer".into())));
    assert_eq!(overlay.list("", None, 9).unwrap(), ["a", "c"]);
    assert_eq!(overlay.timers().unwrap(), ["evening", "morning"]);
    overlay.committed(Revision(1));
    assert_eq!(
        (get("a"), get("c")),
        (Some("old".into()), Some("newer".into())),
        "the second is not a row yet"
    );
    assert_eq!(overlay.list("", None, 9).unwrap(), ["a", "b", "c"]);
    overlay.committed(Revision(2));
    assert_eq!(overlay.get("b").unwrap(), Some("old".into()));
    assert_eq!(overlay.list("", None, 9).unwrap(), ["a", "b"]);
}

#[test]
fn every_listing_equals_that_of_the_rows_as_they_would_be_committed() {
    let committed: BTreeMap<String, Bytes> =
        (0..30).map(|number| (format!("{}{number:02}", ["x", "y"][number % 2]), Bytes::new())).collect();
    let mut expected = committed.clone();
    let overlay = Overlay::new(Arc::new(Rows(committed)));
    let mut state = Vec::new();
    for number in 0..40 {
        let key = format!("{}{number:02}", ["x", "y"][number % 2]);
        match number % 3 {
            0 => {
                expected.remove(&key);
                state.push((key, None));
            }
            1 => {
                expected.insert(key.clone(), Bytes::new());
                state.push((key, Some(Bytes::new())));
            }
            _ => {}
        }
    }
    overlay.add(Revision(1), &TurnEffects { state, ..TurnEffects::default() });
    let expected = Rows(expected);
    for prefix in ["", "x", "y1", "z"] {
        for after in [None, Some("x"), Some("x11"), Some("x12"), Some("y39"), Some("z")] {
            for limit in [0, 1, 2, 5, 100] {
                let case = format!("{prefix:?} {after:?} {limit}");
                let listed = overlay.list(prefix, after, limit).unwrap();
                assert_eq!(listed, expected.list(prefix, after, limit).unwrap(), "{case}");
            }
        }
    }
}
