//! The component's side of the contract: bindings made from `wit/`, the real host, and the exported calls.
//!
//! Only for wasm32. Used by the `export!` macro; not part of the public API.

use std::cell::RefCell;

use crate::{Agent, Query};

mod convert;
mod real_host;

pub use real_host::RealHost;

/// Generated from `wit/`.
#[expect(missing_docs, reason = "generated")]
pub mod bindings {
    wit_bindgen::generate!({
        world: "agent",
        path: "../wit",
        generate_all,
        pub_export_macro: true,
        export_macro_name: "export_component",
        default_bindings_module: "godwit_guest::component::bindings",
    });
}

/// Generated from `wit/`: the export that makes an agent one that answers queries. A component has it only if its `export!`
/// line says so.
#[expect(missing_docs, reason = "generated")]
pub mod query_bindings {
    wit_bindgen::generate!({
        inline: "
            package godwit:sdk;
            world query {
                export godwit:agent/query@0.1.0;
            }
        ",
        world: "godwit:sdk/query",
        path: "../wit",
        with: { "godwit:agent/types@0.1.0": super::bindings::godwit::agent::types },
        pub_export_macro: true,
        export_macro_name: "export_query",
        default_bindings_module: "godwit_guest::component::query_bindings",
    });
}

pub use bindings::exports::godwit::agent::guest as wit;

/// Runs `init` of the agent in `cell`.
///
/// # Errors
/// The agent's.
pub fn init<A: Agent>(cell: &RefCell<A>) -> Result<(), wit::AgentError> {
    cell.borrow_mut().init(&mut RealHost)?;
    Ok(())
}

/// Runs a turn of the agent in `cell`. The number of replies is the host's to check.
///
/// # Errors
/// The agent's.
pub fn handle<A: Agent>(
    cell: &RefCell<A>,
    inputs: Vec<wit::Input>,
) -> Result<Vec<wit::Reply>, wit::AgentError> {
    let inputs: Vec<crate::Input> = inputs.into_iter().map(Into::into).collect();
    let replies = cell.borrow_mut().handle_batch(&inputs, &mut RealHost)?;
    Ok(replies.into_iter().map(Into::into).collect())
}

/// Takes a snapshot of the agent in `cell`.
///
/// # Errors
/// The agent's.
pub fn snapshot<A: Agent>(cell: &RefCell<A>) -> Result<Vec<u8>, wit::AgentError> {
    Ok(cell.borrow().snapshot()?)
}

/// Replaces the agent in `cell` by the one of a snapshot.
///
/// # Errors
/// The agent's.
pub fn restore<A: Agent>(cell: &RefCell<A>, state: &[u8], from_version: &str) -> Result<(), wit::AgentError> {
    cell.replace(A::restore(state, from_version)?);
    Ok(())
}

/// Answers a query from the agent in `cell`.
///
/// # Errors
/// The agent's.
pub fn query<A: Query>(cell: &RefCell<A>, payload: &[u8]) -> Result<wit::Reply, wit::AgentError> {
    Ok(cell.borrow().query(payload, &mut RealHost)?.into())
}

/// Exports the calls of an agent.
#[doc(hidden)]
#[macro_export]
macro_rules! __export_agent {
    ($agent:ty: Query) => {
        $crate::component::export_agent!($agent);

        impl $crate::component::query_bindings::exports::godwit::agent::query::Guest for Component {
            fn query(
                payload: ::std::vec::Vec<u8>,
            ) -> ::std::result::Result<$crate::component::wit::Reply, $crate::component::wit::AgentError>
            {
                AGENT.with(|agent| $crate::component::query(agent, &payload))
            }
        }

        $crate::component::query_bindings::export_query!(
            Component with_types_in $crate::component::query_bindings
        );
    };
    ($agent:ty) => {
        ::std::thread_local! {
            static AGENT: ::std::cell::RefCell<$agent> = ::std::default::Default::default();
        }

        struct Component;

        impl $crate::component::bindings::exports::godwit::agent::guest::Guest for Component {
            fn init() -> ::std::result::Result<(), $crate::component::wit::AgentError> {
                AGENT.with($crate::component::init)
            }

            fn handle(
                inputs: ::std::vec::Vec<$crate::component::wit::Input>,
            ) -> ::std::result::Result<
                ::std::vec::Vec<$crate::component::wit::Reply>,
                $crate::component::wit::AgentError,
            > {
                AGENT.with(|agent| $crate::component::handle(agent, inputs))
            }

            fn snapshot()
            -> ::std::result::Result<::std::vec::Vec<u8>, $crate::component::wit::AgentError> {
                AGENT.with($crate::component::snapshot)
            }

            fn restore(
                state: ::std::vec::Vec<u8>,
                from_version: ::std::string::String,
            ) -> ::std::result::Result<(), $crate::component::wit::AgentError> {
                AGENT.with(|agent| $crate::component::restore(agent, &state, &from_version))
            }
        }

        $crate::component::bindings::export_component!(
            Component with_types_in $crate::component::bindings
        );
    };
}

pub use __export_agent as export_agent;
