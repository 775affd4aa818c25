//! What is found in components, most of them made for the question.

use super::*;
use crate::testing::{MODULE, PREAMBLE, component, encode, section, text};

const GUEST: &str = GUEST_EXPORT;

fn manifest(toml: &str) -> Vec<u8> {
    section(0, &[text(SECTION), toml.as_bytes().to_vec()].concat())
}

fn problems(bytes: &[u8]) -> Vec<String> {
    inspect(bytes).expect_err("it must be refused").problems
}

#[test]
fn what_is_served_is_taken() {
    let imports = [
        "wasi:random/insecure-seed@0.2.4",
        "godwit:agent/types@0.1.0",
        "godwit:agent/state@0.1.0",
        "wasi:cli/stdin@0.2.0",
        "wasi:io/streams@0.2.12",
        "wasi:logging/logging",
        "wasi:logging/logging@0.1.0-draft",
        "wasi:config/store@0.2.0-rc.1",
    ];
    let bytes = encode(&imports, &[GUEST], &[manifest("name = \"n\"\nversion = \"1.2.3\"\n")]);
    let inspection = inspect(&bytes).expect("all is served");
    let mut sorted = imports.to_vec();
    sorted.sort_unstable();
    assert_eq!(inspection.imports, sorted);
    assert_eq!(inspection.name.as_deref(), Some("n"));
    assert_eq!(inspection.version.as_deref(), Some("1.2.3"));
    assert!(inspection.grants.is_empty());
}

#[test]
fn each_import_that_is_not_served_says_why() {
    for (import, says) in [
        ("wasi:filesystem/types@0.2.6", "`godwit:agent/state`"),
        ("wasi:filesystem/preopens@0.2.6", "no files"),
        ("wasi:sockets/tcp@0.2.0", "no sockets"),
        ("wasi:http/outgoing-handler@0.2.0", "no HTTP requests"),
        ("wasi:clocks/timezone@0.2.0", "UTC"),
        ("wasi:cli/exit@0.2.13", "0.2.0 to 0.2.12"),
        ("wasi:cli/exit@0.3.0", "0.2.0 to 0.2.12"),
        ("wasi:cli/exit", "0.2.0 to 0.2.12"),
        ("wasi:logging/logging@0.2.0", "version 0.1.0-draft and the one without a version"),
        ("wasi:config/store@0.2.0-draft", "version 0.2.0-rc.1"),
        ("godwit:agent/state@0.2.0", "version 0.1"),
        ("godwit:agent/channels@0.1.0", "needs the grant `channels`"),
        ("godwit:agent/groups@0.1.0", "does not serve it"),
        ("acme:anvil/drop@1.0.0", "no host of this version"),
        ("wasi:cli/exited@0.2.0", "no host of this version"),
    ] {
        let found = problems(&encode(&[import], &[GUEST], &[]));
        let [problem] = found.as_slice() else {
            panic!("{import}: {found:?}");
        };
        assert!(problem.contains(import) && problem.contains(says), "{problem}");
    }
}

#[test]
fn all_problems_come_at_once() {
    let imports = ["wasi:filesystem/types@0.2.6", "wasi:sockets/udp@0.2.6", "wasi:io/poll@0.2.6"];
    let bytes = encode(&imports, &["wasi:cli/run@0.2.6"], &[manifest("name = 7\n")]);
    let found = problems(&bytes);
    assert_eq!(found.len(), 4, "{found:?}");
    assert!(found[0].contains("`wasi:cli/run@0.2.6`") && found[0].contains("`main`"), "{}", found[0]);
    assert!(found[1].contains("manifest"), "{}", found[1]);
}

#[test]
fn grants_open_what_the_manifest_lists_and_nothing_else() {
    let imports = ["godwit:agent/state@0.1.0", "godwit:agent/outbox@0.1.0", "godwit:agent/turn@0.1.0"];
    let bytes = encode(&imports, &[GUEST], &[manifest("grants = [\"state\"]\n")]);
    let found = problems(&bytes);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].contains("outbox@0.1.0") && found[0].contains("grant `outbox`"), "{}", found[0]);

    let bytes = encode(&imports, &[GUEST], &[manifest("grants = [\"state\", \"outbox\"]\n")]);
    assert_eq!(inspect(&bytes).expect("both are granted").grants, ["outbox", "state"]);
}

#[test]
fn bad_manifests_are_refused() {
    for (toml, says) in [
        ("name = ", "can't be read"),
        ("colour = \"red\"", "unknown field"),
        ("name = \"two words\"", "printable ASCII"),
        ("grants = [\"fly\\u001b\"]", "`fly\\u{1b}`"),
        ("[limits]\nmemory-bytes-max = 1000000000\n", "memory-bytes-max"),
    ] {
        let found = problems(&encode(&[], &[], &[manifest(toml)]));
        assert!(found.iter().any(|problem| problem.contains(says)), "{toml}: {found:?}");
    }
    let found = problems(&encode(&[], &[], &[manifest("name = \"a\""), manifest("name = \"b\"")]));
    assert!(found.iter().any(|problem| problem.contains("2 manifests")), "{found:?}");
}

#[test]
fn a_manifest_is_found_inside_the_core_module() {
    let module = [MODULE.to_vec(), manifest("name = \"inner\"\n")].concat();
    let bytes = encode(&["wasi:io/poll@0.2.0"], &[GUEST], &[section(1, &module)]);
    assert_eq!(inspect(&bytes).expect("it is whole").name.as_deref(), Some("inner"));
}

#[test]
fn what_is_no_component_is_told_apart() {
    let whole = encode(&["wasi:io/poll@0.2.0"], &[GUEST], &[]);
    for (bytes, says) in [
        (Vec::new(), "no WebAssembly component"),
        (b"(component)".to_vec(), "no WebAssembly component"),
        (MODULE.to_vec(), "core module"),
        (PREAMBLE[..6].to_vec(), "truncated"),
        (whole[..whole.len() - 3].to_vec(), "truncated"),
        (PREAMBLE.to_vec(), "it exports nothing"),
        (encode(&["wasi:io/poll@0.2.0"], &["godwit:agent/guest@0.2.0"], &[]), "another world"),
    ] {
        let found = problems(&bytes);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].contains(says), "{}", found[0]);
    }
}

#[test]
fn real_components_are_judged_right() {
    let counter = inspect(&component("counter")).expect("the counter is an agent");
    assert_eq!(counter.name.as_deref(), Some("counter"));
    assert!(counter.version.is_some());
    let found = problems(&component("test/fs"));
    assert!(found.iter().all(|problem| problem.contains("wasi:filesystem/")), "{found:?}");
    assert_eq!(found.len(), 2, "types and preopens");
    let found = problems(&component("test/other-world"));
    assert!(found[0].contains("`example:greeting/greet@1.0.0`"), "{found:?}");
    let mut truncated = component("test/hostile");
    truncated.truncate(truncated.len() / 2);
    assert!(problems(&truncated)[0].contains("truncated"));
}
