//! Files of compiled code, whole and damaged.

use super::*;
use crate::config::wasmtime_config;

fn engine() -> wasmtime::Engine {
    wasmtime::Engine::new(&wasmtime_config(1)).expect("an engine")
}

/// The smallest component, compiled: its digest and its code.
fn compiled(engine: &wasmtime::Engine) -> (Digest, Vec<u8>) {
    let bytes = b"\0asm\x0d\0\x01\0";
    let component = Component::new(engine, bytes).expect("it compiles");
    (Digest::of(bytes), component.serialize().expect("it serializes"))
}

#[test]
fn code_comes_back_and_only_the_owner_may_look() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("a/b");
    let engine = engine();
    let (digest, code) = compiled(&engine);
    let cache = Cache::open(&path, &engine).expect("it opens");
    assert!(cache.load(&engine, digest).is_none());
    cache.store(digest, &code).expect("it is written");
    assert!(cache.load(&engine, digest).is_some());
    let mode = |path: &Path| std::fs::metadata(path).expect("it is there").permissions().mode() & 0o777;
    assert_eq!(mode(&path), 0o700);
    assert_eq!(mode(&cache.path(digest)), 0o600);
}

#[test]
fn damage_of_any_kind_is_noticed_and_removed() {
    let directory = tempfile::tempdir().expect("a directory");
    let engine = engine();
    let (digest, code) = compiled(&engine);
    let cache = Cache::open(directory.path(), &engine).expect("it opens");
    let path = cache.path(digest);
    cache.store(digest, &code).expect("it is written");
    let whole = std::fs::read(&path).expect("it is there");
    let flipped = |at: usize| {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        bytes
    };
    let damaged = [
        flipped(0),
        flipped(MAGIC.len()),
        flipped(HEADER_BYTES),
        flipped(whole.len() / 2),
        flipped(whole.len() - 1),
        whole[..whole.len() - 1].to_vec(),
        whole[..10].to_vec(),
        [whole.as_slice(), b"x"].concat(),
        Vec::new(),
    ];
    for bytes in damaged {
        std::fs::write(&path, bytes).expect("it is written");
        assert!(cache.load(&engine, digest).is_none());
        assert!(!path.exists(), "a damaged file is removed");
    }
}

#[test]
fn the_file_of_another_component_is_not_taken() {
    let directory = tempfile::tempdir().expect("a directory");
    let engine = engine();
    let (digest, code) = compiled(&engine);
    let cache = Cache::open(directory.path(), &engine).expect("it opens");
    cache.store(digest, &code).expect("it is written");
    let other = Digest::of(b"other");
    std::fs::rename(cache.path(digest), cache.path(other)).expect("it is renamed");
    assert!(cache.load(&engine, other).is_none());
}

#[test]
fn opening_sweeps_what_nobody_will_read() {
    let directory = tempfile::tempdir().expect("a directory");
    let engine = engine();
    let (digest, code) = compiled(&engine);
    let cache = Cache::open(directory.path(), &engine).expect("it opens");
    cache.store(digest, &code).expect("it is written");
    let stale = ["00.0123456789abcdef.cwasm", "00.0123456789abcdef.cwasm.1-0.partial"];
    for name in stale.iter().chain(&["note.txt"]) {
        std::fs::write(directory.path().join(name), b"x").expect("it is written");
    }
    let cache = Cache::open(directory.path(), &engine).expect("it opens");
    assert!(cache.load(&engine, digest).is_some());
    assert!(stale.iter().all(|name| !directory.path().join(name).exists()));
    assert!(directory.path().join("note.txt").exists(), "what is not ours stays");
}

#[test]
fn kinds_of_engine_have_names_of_their_own() {
    let other = wasmtime::Engine::new(wasmtime_config(1).epoch_interruption(false)).expect("an engine");
    assert_eq!(engine_name(&engine()), engine_name(&engine()));
    assert_ne!(engine_name(&engine()), engine_name(&other));
}
