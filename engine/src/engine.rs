//! The engine: compiles each component once, keeps it linked, starts guests of it.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use godwit_core::digest::Digest;
use godwit_core::guest::{Guest, GuestError, GuestLoader, GuestRequest, LoadError, LoadedPlugin};
use godwit_core::input::FaultKind;
use wasmtime::component::{Component, Linker};

use crate::cache::Cache;
use crate::config::{EngineConfig, EngineError, check_map_count, wasmtime_config};
use crate::context::GuestContext;
use crate::fault::fault;
use crate::guest::WasmGuest;
use crate::imports;
use crate::linked::Plugin;
use crate::plugin::{Inspection, inspect};
use crate::ticker::Ticker;

/// Loads components and starts guests: one per process, shared by all agents.
pub struct Engine {
    wasmtime: wasmtime::Engine,
    linker: Linker<GuestContext>,
    cache: Cache,
    plugins: Mutex<HashMap<Digest, Arc<Slot>>>,
    /// Last, so that it is joined when nobody can use the engine any more.
    _ticker: Ticker,
}

/// Where a plugin is or will be. Who makes it holds the lock, so that it is made once.
type Slot = Mutex<Option<Arc<Plugin>>>;

impl Engine {
    /// Sets up wasmtime, the cache, and the thread that keeps deadlines.
    ///
    /// # Errors
    /// `EngineError` when the machine can't hold as many guests, or the cache directory can't be used.
    pub fn new(config: EngineConfig) -> Result<Self, EngineError> {
        let EngineConfig { cache_dir, resident_max } = config;
        check_map_count(resident_max)?;
        let refused =
            |error: wasmtime::Error| EngineError::Wasmtime { resident_max, reason: format!("{error:#}") };
        let wasmtime = wasmtime::Engine::new(&wasmtime_config(resident_max)).map_err(refused)?;
        let linker = imports::linker(&wasmtime).map_err(refused)?;
        let cache = Cache::open(&cache_dir, &wasmtime)
            .map_err(|source| EngineError::Cache { path: cache_dir, source })?;
        Ok(Self {
            _ticker: Ticker::start(wasmtime.clone()).map_err(EngineError::Ticker)?,
            wasmtime,
            linker,
            cache,
            plugins: Mutex::new(HashMap::new()),
        })
    }

    /// A plugin that is ready, from memory or from the cache.
    fn ready(&self, digest: Digest) -> Option<Arc<Plugin>> {
        let found = self.make(digest, || Ok(None));
        found.ok().flatten()
    }

    /// A plugin, made by `compile` if neither memory nor the cache has it. One thread at a time per digest.
    fn make(
        &self,
        digest: Digest,
        compile: impl FnOnce() -> Result<Option<Component>, LoadError>,
    ) -> Result<Option<Arc<Plugin>>, LoadError> {
        let slot = Arc::clone(lock(&self.plugins).entry(digest).or_default());
        let mut place = lock(&slot);
        if let Some(plugin) = place.as_ref() {
            return Ok(Some(Arc::clone(plugin)));
        }
        let cached = self.cache.load(&self.wasmtime, digest);
        let linked = match cached.and_then(|component| self.link(&component).ok()) {
            Some(plugin) => Ok(Some(plugin)),
            None => {
                compile().and_then(|component| component.map(|component| self.link(&component)).transpose())
            }
        };
        match linked {
            Ok(Some(plugin)) => {
                *place = Some(Arc::clone(&plugin));
                Ok(Some(plugin))
            }
            other => {
                // Nothing was made: the map keeps only what is ready. Others who wait for the lock try for themselves.
                let mut plugins = lock(&self.plugins);
                if plugins.get(&digest).is_some_and(|current| Arc::ptr_eq(current, &slot)) {
                    plugins.remove(&digest);
                }
                other
            }
        }
    }

    fn link(&self, component: &Component) -> Result<Arc<Plugin>, LoadError> {
        Plugin::link(&self.linker, component).map(Arc::new).map_err(|error| LoadError {
            problems: vec![format!(
                "it does not fit the contract of `godwit:agent@0.1.0`: {error:#}; build it with the WIT files of this host's version"
            )],
        })
    }

    fn compile(&self, digest: Digest, bytes: &[u8]) -> Result<Component, LoadError> {
        let refused = |reason: String| LoadError {
            problems: vec![format!(
                "it can't be compiled: {reason}; the host runs WebAssembly 2.0 without threads, GC, exceptions and 64-bit memory"
            )],
        };
        // A bug of the compiler that an upload finds must not take the host down.
        let component = catch_unwind(AssertUnwindSafe(|| Component::new(&self.wasmtime, bytes)))
            .map_err(|_| refused("the compiler failed".into()))?
            .map_err(|error| refused(format!("{error:#}")))?;
        let stored = component
            .serialize()
            .map_err(|error| format!("{error:#}"))
            .and_then(|code| self.cache.store(digest, &code).map_err(|error| error.to_string()));
        if let Err(error) = stored {
            tracing::warn!(plugin = %digest, error, "cannot keep compiled code; it is compiled again after a restart");
        }
        Ok(component)
    }
}

impl GuestLoader for Engine {
    fn load(&self, component: &[u8]) -> Result<LoadedPlugin, LoadError> {
        let Inspection { name, version, imports, grants } = inspect(component)?;
        let digest = Digest::of(component);
        self.make(digest, || self.compile(digest, component).map(Some))?;
        Ok(LoadedPlugin { digest, name, version, imports, grants })
    }

    fn is_loaded(&self, plugin: Digest) -> bool {
        self.ready(plugin).is_some()
    }

    fn answers_queries(&self, plugin: Digest) -> bool {
        self.ready(plugin).is_some_and(|plugin| plugin.answers_queries())
    }

    /// Checks that the plugin is there. Instantiation is part of the guest's first call, and what is wrong with it is
    /// that call's error.
    fn start(&self, request: GuestRequest) -> Result<Box<dyn Guest>, GuestError> {
        if !request.guard.is_held() {
            return Err(GuestError::Fenced);
        }
        let digest = request.spec.plugin;
        match self.ready(digest) {
            Some(plugin) => Ok(Box::new(WasmGuest::new(plugin, request))),
            None => Err(fault(FaultKind::Start, format!("plugin {digest} is not loaded on this host"))),
        }
    }
}

/// Locks. What a panic left behind is whole: nothing is half written under these locks.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
