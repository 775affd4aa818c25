//! A component that exports another world: a host must refuse it and say what an agent exports. Only for wasm32, only for tests.

#![cfg(target_arch = "wasm32")]
#![deny(unsafe_code)]

/// Generated from the text below.
#[expect(unsafe_code, reason = "generated")]
mod bindings {
    wit_bindgen::generate!({
        inline: r#"
            package example:greeting@1.0.0;
            interface greet {
                greet: func(name: string) -> string;
            }
            world greeter {
                export greet;
            }
        "#,
    });
    export!(Greeter with_types_in self);
    use super::Greeter;
}

struct Greeter;

impl bindings::exports::example::greeting::greet::Guest for Greeter {
    fn greet(name: String) -> String {
        format!("hello {name}")
    }
}
