//! The macro that makes a component of an agent, and the manifest that it puts into the component.
//!
//! The manifest is TOML in the custom section `godwit:manifest`: `name`, `version`, and when needed `grants` and `limits`.

/// Makes a component of an agent. Expands to nothing but for wasm32, so that the crate tests natively.
///
/// - `export!(Counter)`: the manifest names the package and its version.
/// - `export!(Counter, name = "tally")`: the same, under another name.
/// - `export!(Counter, manifest = include_str!("../godwit.toml"))`: the whole manifest, TOML, as a constant text.
/// - `export!(Counter: Query)`, perhaps with more behind it as above: an agent that implements [`crate::Query`], too.
#[macro_export]
macro_rules! export {
    ($agent:ty $(: $query:ident)?) => {
        $crate::export!(
            $agent $(: $query)?,
            manifest = concat!(
                "name = \"",
                env!("CARGO_PKG_NAME"),
                "\"\nversion = \"",
                env!("CARGO_PKG_VERSION"),
                "\"\n"
            )
        );
    };
    ($agent:ty $(: $query:ident)?, name = $name:literal) => {
        $crate::export!(
            $agent $(: $query)?,
            manifest = concat!("name = \"", $name, "\"\nversion = \"", env!("CARGO_PKG_VERSION"), "\"\n")
        );
    };
    ($agent:ty $(: $query:ident)?, manifest = $manifest:expr) => {
        #[cfg(target_arch = "wasm32")]
        const _: () = {
            const MANIFEST_TEXT: &str = $manifest;
            #[used]
            #[unsafe(link_section = "godwit:manifest")]
            static MANIFEST: [u8; MANIFEST_TEXT.len()] = $crate::manifest_bytes(MANIFEST_TEXT);

            $crate::component::export_agent!($agent $(: $query)?);
        };
    };
}

/// The bytes of a text as an array, which is what a custom section is made of.
///
/// # Panics
/// When `N` is not the text's length; at compile time, since it is called in constants only.
pub const fn manifest_bytes<const N: usize>(text: &str) -> [u8; N] {
    assert!(text.len() == N, "N is the length of the text");
    let mut bytes = [0; N];
    let mut at = 0;
    while at < N {
        bytes[at] = text.as_bytes()[at];
        at += 1;
    }
    bytes
}
