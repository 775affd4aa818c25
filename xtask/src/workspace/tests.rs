//! Reading cargo's metadata; `package` makes members for the tests of other modules.

use super::*;

/// A member with normal dependencies on `dependencies`; one written `dev:NAME` is a dev-dependency.
pub(crate) fn package(name: &str, folder: &str, dependencies: &[&str]) -> Package {
    let dependency = |text: &&str| match text.strip_prefix("dev:") {
        Some(name) => Dependency { name: name.to_owned(), kind: Some("dev".to_owned()) },
        None => Dependency { name: (*text).to_owned(), kind: None },
    };
    Package {
        id: format!("id of {name}"),
        name: name.to_owned(),
        folder: folder.to_owned(),
        is_component: folder.starts_with("plugins/") || folder.starts_with("tests/guests/"),
        has_doc_tests: false,
        is_default_member: !folder.contains('/'),
        dependencies: dependencies.iter().map(dependency).collect(),
    }
}

/// A workspace of these members.
pub(crate) fn workspace(packages: Vec<Package>) -> Workspace {
    Workspace { root: "/r".into(), target: "/r/target".into(), packages }
}

#[test]
fn metadata_is_read() {
    let text = r#"{
        "packages": [
            {"id": "1", "name": "counter", "manifest_path": "/r/plugins/counter/Cargo.toml",
             "targets": [{"crate_types": ["cdylib", "rlib"], "name": "counter", "doctest": true}],
             "dependencies": [{"name": "godwit-guest", "kind": null}, {"name": "proptest", "kind": "dev"}]},
            {"id": "2", "name": "godwit-core", "manifest_path": "/r/core/Cargo.toml",
             "targets": [{"crate_types": ["lib"], "doctest": false}], "dependencies": []}
        ],
        "workspace_default_members": ["2"], "workspace_root": "/r", "target_directory": "/t"
    }"#;
    let workspace = Workspace::from_metadata(serde_json::from_str(text).unwrap()).unwrap();
    let counter = workspace.package("counter").unwrap();
    assert_eq!((counter.folder.as_str(), counter.folder_name()), ("plugins/counter", "counter"));
    assert_eq!((counter.is_component, counter.is_default_member), (true, false));
    assert_eq!(counter.dependencies[1].kind.as_deref(), Some("dev"));
    assert!(workspace.package("godwit-core").unwrap().is_default_member);
    assert_eq!(workspace.components_below("plugins").len(), 1);
    assert!(workspace.package("godwit-mesh").is_err());
    assert!(workspace.components_below("tests/guests").is_empty());
    assert_eq!(workspace.guests(), Path::new("/t/guests"));
}

#[test]
fn below_is_by_whole_parts() {
    assert!(package("a", "plugins/a", &[]).is_below("plugins"));
    assert!(!package("a", "plugins-old/a", &[]).is_below("plugins"));
    assert!(!package("a", "plugins", &[]).is_below("plugins"));
}
