//! Which components are built, where they are found and how they are copied.

use super::*;
use crate::workspace::tests::{package, workspace};

#[test]
fn test_guests_are_built_only_when_asked_for() {
    let workspace = workspace(vec![
        package("counter", "plugins/counter", &[]),
        package("godwit-core", "core", &[]),
        package("guest-spin", "tests/guests/spin", &[]),
    ]);
    let copies = |which| wanted(&workspace, which).into_iter().map(|(_, copy)| copy).collect::<Vec<_>>();
    assert_eq!(copies(Which::Plugins), [Path::new("/r/target/guests/counter.wasm")]);
    let all = ["/r/target/guests/counter.wasm", "/r/target/guests/test/spin.wasm"];
    assert_eq!(copies(Which::All), all.map(PathBuf::from));
}

#[test]
fn components_are_found_by_package() {
    let messages = concat!(
        r#"{"reason":"compiler-artifact","package_id":"a","filenames":["/t/libserde.rlib"],"fresh":true}"#,
        "\n",
        r#"{"reason":"compiler-artifact","package_id":"b","filenames":["/t/b.wasm"],"fresh":true}"#,
        "\n",
        r#"{"reason":"build-finished","success":true}"#,
        "\n",
    );
    let built = components(messages).unwrap();
    assert_eq!(built.len(), 1);
    assert_eq!(built["b"], Path::new("/t/b.wasm"));
}

#[test]
fn install_replaces_the_file_and_leaves_nothing_else() {
    let folder = std::env::temp_dir().join(format!("xtask-install-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let (from, to) = (folder.join("from"), folder.join("below/to.wasm"));
    for text in ["one", "two"] {
        fs::write(&from, text).unwrap();
        install(&from, &to).unwrap();
        assert_eq!(fs::read_to_string(&to).unwrap(), text);
    }
    assert_eq!(fs::read_dir(folder.join("below")).unwrap().count(), 1);
    assert!(install(&folder.join("absent"), &to).is_err());
    fs::remove_dir_all(&folder).unwrap();
}
