//! Tests of the notes: what the next process reads, and what it does with a file that is not theirs.

use super::*;

fn dir() -> (tempfile::TempDir, Dir) {
    let folder = tempfile::tempdir().unwrap();
    let dir = Dir::open_ambient_dir(folder.path(), cap_std::ambient_authority()).unwrap();
    (folder, dir)
}

fn agent(name: &str) -> AgentId {
    AgentId::parse(name).unwrap()
}

fn open(dir: &Dir) -> LoadingFile {
    LoadingFile::open(dir).unwrap()
}

/// The suspects among some agents.
fn suspects<'a>(notes: &LoadingFile, names: &[&'a str]) -> Vec<&'a str> {
    names.iter().copied().filter(|name| notes.is_suspect(&agent(name))).collect()
}

#[test]
fn who_was_being_loaded_is_suspected_by_the_next_process_until_that_is_counted() {
    let (_folder, dir) = dir();
    let long = "x".repeat(AGENT_ID_BYTES_MAX);
    let names = ["a", "b", "c", long.as_str()];
    let first = open(&dir);
    assert!(suspects(&first, &names).is_empty());
    let _a = first.begin(&agent("a")).unwrap();
    let b = first.begin(&agent("b")).unwrap();
    let _long = first.begin(&agent(&long)).unwrap();
    first.end(b);
    assert!(suspects(&first, &names).is_empty(), "it lives");
    // It dies. The second counts one of them, loads two others, and dies as well.
    let second = open(&dir);
    assert_eq!(suspects(&second, &names), ["a", long.as_str()]);
    second.acquit(&agent("a"));
    assert_eq!(suspects(&second, &names), [long.as_str()]);
    let c = second.begin(&agent("c")).unwrap();
    second.begin(&agent("b")).unwrap();
    second.end(c);
    let third = open(&dir);
    assert_eq!(suspects(&third, &names), ["b", long.as_str()]);
    for name in names {
        third.acquit(&agent(name));
    }
    assert!(suspects(&open(&dir), &names).is_empty());
}

#[test]
fn an_agent_that_is_noted_twice_is_acquitted_of_both() {
    let (_folder, dir) = dir();
    for _ in 0..2 {
        open(&dir).begin(&agent("a")).unwrap();
    }
    let notes = open(&dir);
    notes.acquit(&agent("a"));
    assert!(!notes.is_suspect(&agent("a")));
    assert!(!open(&dir).is_suspect(&agent("a")));
}

#[test]
fn what_is_loaded_now_takes_the_place_of_a_suspect_and_never_that_of_another() {
    let (_folder, dir) = dir();
    let before = open(&dir);
    for number in 0..SLOTS {
        before.begin(&agent(&format!("old-{number}"))).unwrap();
    }
    assert_eq!(before.begin(&agent("more")), None);
    let notes = open(&dir);
    assert!(notes.is_suspect(&agent("old-0")));
    let number = notes.begin(&agent("new")).unwrap();
    assert_eq!(suspects(&notes, &["old-0", "old-1"]), ["old-1"]);
    assert_eq!(suspects(&open(&dir), &["old-0", "old-1", "new"]), ["old-1", "new"]);
    notes.end(number);
    assert_eq!(suspects(&open(&dir), &["old-0", "old-1", "new"]), ["old-1"]);
}

#[test]
fn a_damaged_note_is_ignored_and_the_others_are_not() {
    let (_folder, dir) = dir();
    let notes = open(&dir);
    for name in ["a", "b", "c", "d"] {
        notes.begin(&agent(name)).unwrap();
    }
    let mut bytes = dir.read(FILE).unwrap();
    let first = SLOT_BYTES + 1 + CHECK_BYTES;
    bytes[first] ^= 1;
    bytes[SLOT_BYTES * 2] = u8::MAX;
    bytes[SLOT_BYTES * 3] += 1;
    dir.write(FILE, &bytes).unwrap();
    let notes = open(&dir);
    assert_eq!(suspects(&notes, &["a", "b", "c", "d"]), ["d"]);
    assert_eq!(parse(&dir.read(FILE).unwrap()), (notes.lock().clone(), true), "it is sound again");
}

#[test]
fn a_file_that_is_something_else_is_made_anew() {
    let (_folder, dir) = dir();
    open(&dir).begin(&agent("a")).unwrap();
    let sound = dir.read(FILE).unwrap();
    let other_version = [&MAGIC[..], &[FORMAT + 1], &sound[MAGIC.len() + 1..]].concat();
    let longer = [&sound[..], &[0]].concat();
    let foreign = vec![7; 1 << 20];
    for bytes in [&sound[..0], &sound[..3], &sound[..sound.len() - 1], &longer, &other_version, &foreign] {
        dir.write(FILE, bytes).unwrap();
        let notes = open(&dir);
        assert!(!notes.is_suspect(&agent("a")), "{} bytes", bytes.len());
        notes.begin(&agent("b")).unwrap();
        let next = open(&dir);
        assert_eq!(suspects(&next, &["a", "b"]), ["b"], "{} bytes", bytes.len());
    }
    // The control: as it was it does name the agent.
    dir.write(FILE, &sound).unwrap();
    assert!(open(&dir).is_suspect(&agent("a")));
}

#[test]
fn a_place_that_is_no_file_is_refused_and_nothing_else() {
    let (_folder, dir) = dir();
    dir.create_dir(FILE).unwrap();
    assert!(LoadingFile::open(&dir).is_err());
}

#[test]
fn a_note_that_can_t_be_written_stops_nobody() {
    let (_folder, dir) = dir();
    drop(open(&dir));
    let file = dir.open(FILE).unwrap().into_std();
    let slots = Mutex::new(vec![Slot::Free; SLOTS]);
    let notes = LoadingFile { file, slots, has_warned: AtomicBool::new(false) };
    let number = notes.begin(&agent("a")).unwrap();
    notes.end(number);
    assert!(notes.has_warned.load(Ordering::Relaxed));
}
