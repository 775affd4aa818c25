//! The floor of a guest call: the same component in bare wasmtime, with the engine's settings that cost anything and
//! without all that the engine does round a call. Of the imports only `turn` and an empty configuration are served; the
//! others trap.

use anyhow::{Context, Result, bail};
use godwit_core::lease::LeaseGuard;
use wasmtime::component::{Component, HasSelf, Linker};
use wasmtime::{CallHook, Config, Engine, InstanceAllocationStrategy, PoolingAllocationConfig, Store};

use bindings::godwit::agent::turn::{self, TurnInfo};
pub(crate) use bindings::godwit::agent::types;
use bindings::wasi::config::store;
use bindings::{Agent, AgentPre};

mod bindings {
    //! Generated from `wit/`.

    wasmtime::component::bindgen!({
        path: "../../wit",
        world: "agent",
        require_store_data_send: true,
    });
}

/// Guests at a time.
const GUESTS_MAX: u32 = 16;
/// Core instances and tables that a component in Rust is made of, with room to spare.
const PARTS_MAX: u32 = 16;
const MEMORY_BYTES_MAX: usize = 64 << 20;
const KEEP_RESIDENT_BYTES: usize = 64 << 10;

/// A compiled component, ready to start.
pub(crate) struct BarePlugin {
    engine: Engine,
    plugin: AgentPre<Data>,
}

/// What `turn.current` answers.
struct Data {
    turn: TurnInfo,
}

impl turn::Host for Data {
    fn current(&mut self) -> TurnInfo {
        self.turn.clone()
    }
}

impl store::Host for Data {
    fn get(&mut self, _key: String) -> Result<Option<String>, store::Error> {
        Ok(None)
    }

    fn get_all(&mut self) -> Result<Vec<(String, String)>, store::Error> {
        Ok(Vec::new())
    }
}

impl types::Host for Data {}

impl BarePlugin {
    /// Compiles a component.
    ///
    /// # Errors
    /// When wasmtime refuses.
    pub(crate) fn compile(component: &[u8]) -> Result<Self> {
        let engine = Engine::new(&config()).map_err(plain)?;
        let component = Component::new(&engine, component).map_err(plain)?;
        let mut linker = Linker::new(&engine);
        turn::add_to_linker::<_, HasSelf<_>>(&mut linker, |data: &mut Data| data).map_err(plain)?;
        store::add_to_linker::<_, HasSelf<_>>(&mut linker, |data: &mut Data| data).map_err(plain)?;
        linker.define_unknown_imports_as_traps(&component).map_err(plain)?;
        let plugin = linker.instantiate_pre(&component).and_then(AgentPre::new).map_err(plain)?;
        Ok(Self { engine, plugin })
    }

    /// Starts a guest. With a guard, it is asked at each import, as the engine does it.
    ///
    /// # Errors
    /// When it can't be instantiated.
    pub(crate) fn start(&self, agent: &str, guard: Option<LeaseGuard>) -> Result<BareGuest> {
        let turn = TurnInfo {
            agent: agent.to_owned(),
            generation: 1,
            token: 1,
            revision: 1,
            attempt: 1,
            now_ms: 1_700_000_000_000,
        };
        let mut store = Store::new(&self.engine, Data { turn });
        store.set_epoch_deadline(u64::MAX / 2);
        if let Some(guard) = guard {
            store.call_hook(move |_, crossing| match crossing {
                CallHook::CallingHost if !guard.is_held() => Err(wasmtime::Error::msg("fenced")),
                _ => Ok(()),
            });
        }
        let agent = self.plugin.instantiate(&mut store).map_err(plain)?;
        Ok(BareGuest { store, agent })
    }
}

/// A running guest.
pub(crate) struct BareGuest {
    store: Store<Data>,
    agent: Agent,
}

impl BareGuest {
    /// Calls `init`.
    ///
    /// # Errors
    /// When it traps or the guest says no.
    pub(crate) fn init(&mut self) -> Result<()> {
        let answer = self.agent.godwit_agent_guest().call_init(&mut self.store);
        checked("init", answer)
    }

    /// Calls `handle`.
    ///
    /// # Errors
    /// As `init`.
    pub(crate) fn handle(&mut self, inputs: &[types::Input]) -> Result<Vec<types::Reply>> {
        let answer = self.agent.godwit_agent_guest().call_handle(&mut self.store, inputs);
        checked("handle", answer)
    }

    /// Calls `snapshot`.
    ///
    /// # Errors
    /// As `init`.
    pub(crate) fn snapshot(&mut self) -> Result<Vec<u8>> {
        let answer = self.agent.godwit_agent_guest().call_snapshot(&mut self.store);
        checked("snapshot", answer)
    }

    /// Calls `restore`.
    ///
    /// # Errors
    /// As `init`.
    pub(crate) fn restore(&mut self, state: &[u8], version: &str) -> Result<()> {
        let guest = self.agent.godwit_agent_guest();
        checked("restore", guest.call_restore(&mut self.store, state, version))
    }
}

/// The input that asks `payload`.
pub(crate) fn input(payload: &str) -> types::Input {
    types::Input {
        id: (1, 2),
        kind: types::Kind::Message,
        source: types::Source::External("http".into()),
        content_type: "text/plain".into(),
        payload: payload.into(),
        headers: Vec::new(),
        correlation: None,
        accepted_at_ms: 1_700_000_000_000,
    }
}

fn checked<T>(what: &str, answer: wasmtime::Result<Result<T, types::AgentError>>) -> Result<T> {
    match answer.map_err(plain).with_context(|| format!("bare guest: {what}"))? {
        Ok(value) => Ok(value),
        Err(error) => bail!("bare guest: {what}: {error:?}"),
    }
}

/// The engine's settings, as far as they cost time.
fn config() -> Config {
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(GUESTS_MAX)
        .total_memories(GUESTS_MAX)
        .total_tables(GUESTS_MAX * PARTS_MAX)
        .total_core_instances(GUESTS_MAX * PARTS_MAX)
        .max_core_instances_per_component(PARTS_MAX)
        .max_tables_per_component(PARTS_MAX)
        .max_memory_size(MEMORY_BYTES_MAX)
        .linear_memory_keep_resident(KEEP_RESIDENT_BYTES)
        .table_keep_resident(KEEP_RESIDENT_BYTES);
    let mut config = Config::new();
    config
        .wasm_component_model(true)
        .concurrency_support(false)
        .epoch_interruption(true)
        .cranelift_nan_canonicalization(true)
        .memory_reservation(MEMORY_BYTES_MAX as u64)
        .memory_init_cow(true)
        .allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    config
}

/// wasmtime's errors are a type of their own.
fn plain(error: wasmtime::Error) -> anyhow::Error {
    anyhow::Error::msg(format!("{error:#}"))
}
