//! A component with its imports linked and its exports found: what guests are instantiated from.

use wasmtime::component::{Component, InstancePre, Linker};

use crate::bindings::{Agent, AgentIndices, query};
use crate::context::GuestContext;

/// The interface that makes an agent one that answers queries. A component may export any 0.1.x of it.
const QUERY_EXPORT: &str = "godwit:agent/query@0.1.0";

/// A component that is ready to be instantiated.
pub(crate) struct Plugin {
    component: InstancePre<GuestContext>,
    agent: AgentIndices,
    query: Option<query::GuestIndices>,
}

/// What an instance can be called for.
pub(crate) struct Exports {
    pub(crate) agent: Agent,
    /// There if the component answers queries.
    pub(crate) query: Option<query::Guest>,
}

impl Plugin {
    /// Links a component.
    ///
    /// # Errors
    /// What of its imports or exports does not fit the contract.
    pub(crate) fn link(linker: &Linker<GuestContext>, component: &Component) -> wasmtime::Result<Self> {
        let linked = linker.instantiate_pre(component)?;
        let agent = AgentIndices::new(&linked)?;
        let has_query = component.get_export_index(None, QUERY_EXPORT).is_some();
        let query = has_query.then(|| query::GuestIndices::new(&linked)).transpose()?;
        Ok(Self { component: linked, agent, query })
    }

    pub(crate) fn answers_queries(&self) -> bool {
        self.query.is_some()
    }

    pub(crate) fn engine(&self) -> &wasmtime::Engine {
        self.component.engine()
    }

    pub(crate) fn instantiate(&self, store: &mut wasmtime::Store<GuestContext>) -> wasmtime::Result<Exports> {
        let instance = self.component.instantiate(&mut *store)?;
        let agent = self.agent.load(&mut *store, &instance)?;
        let query = self.query.as_ref().map(|query| query.load(&mut *store, &instance)).transpose()?;
        Ok(Exports { agent, query })
    }
}
