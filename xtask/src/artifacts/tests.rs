//! Messages as cargo writes them.

use super::*;

#[test]
fn test_programs_are_told_from_what_they_are_made_of() {
    let messages = concat!(
        "   Compiling a\n",
        r#"{"reason":"compiler-artifact","package_id":"a","filenames":["/t/liba.rlib"],"executable":null,"profile":{"test":false}}"#,
        "\n",
        r#"{"reason":"compiler-artifact","package_id":"a","filenames":["/t/a-1"],"executable":"/t/a-1","profile":{"test":true}}"#,
        "\n",
        r#"{"reason":"compiler-artifact","package_id":"b","filenames":["/t/b"],"executable":"/t/b","profile":{"test":false}}"#,
        "\n",
        r#"{"reason":"build-finished","success":true}"#,
        "\n",
    );
    let built = artifacts(messages).unwrap();
    let told: Vec<_> = built.iter().map(|artifact| (artifact.package.as_str(), artifact.is_test)).collect();
    assert_eq!(told, [("a", false), ("a", true), ("b", false)]);
    assert_eq!(built[1].executable.as_deref(), Some(std::path::Path::new("/t/a-1")));
    assert!(artifacts("{nonsense").is_err());
}
