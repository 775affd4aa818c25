//! Generated from `wit/`: the worlds as the host sees them. Imports may end the call, hence `trappable`.

wasmtime::component::bindgen!({
    path: "../wit",
    world: "agent",
    imports: { default: trappable },
    require_store_data_send: true,
    // Answers of imports are kept in the journal.
    additional_derives: [serde::Serialize, serde::Deserialize],
});

/// What the world `agent-query` has beyond `agent`: its export.
pub(crate) mod query {
    wasmtime::component::bindgen!({
        path: "../wit",
        world: "agent-query",
        with: {
            "godwit:agent/types": crate::bindings::godwit::agent::types,
            "godwit:agent/turn": crate::bindings::godwit::agent::turn,
            "godwit:agent/state": crate::bindings::godwit::agent::state,
            "godwit:agent/outbox": crate::bindings::godwit::agent::outbox,
            "godwit:agent/timers": crate::bindings::godwit::agent::timers,
            "godwit:agent/operations": crate::bindings::godwit::agent::operations,
            "godwit:agent/identity": crate::bindings::godwit::agent::identity,
            "godwit:agent/channels": crate::bindings::godwit::agent::channels,
            "wasi:logging/logging": crate::bindings::wasi::logging::logging,
            "wasi:config/store": crate::bindings::wasi::config::store,
        },
        require_store_data_send: true,
    });

    pub(crate) use exports::godwit::agent::query::{Guest, GuestIndices};
}
