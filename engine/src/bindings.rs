//! Generated from `wit/`: the world `agent` as the host sees it. Imports may end the call, hence `trappable`.

wasmtime::component::bindgen!({
    path: "../wit",
    world: "agent",
    imports: { default: trappable },
    require_store_data_send: true,
    // Answers of imports are kept in the journal.
    additional_derives: [serde::Serialize, serde::Deserialize],
});
