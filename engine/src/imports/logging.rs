//! `wasi:logging/logging`, under its draft version and without one.

use wasmtime::StoreContextMut;
use wasmtime::component::Linker;

use crate::bindings::wasi::logging::logging::{self, Level};
use crate::context::GuestContext;
use crate::log;

const WITHOUT_VERSION: &str = "wasi:logging/logging";

impl logging::Host for GuestContext {
    fn log(&mut self, level: Level, context: String, message: String) -> wasmtime::Result<()> {
        let level = match level {
            Level::Trace => log::Level::Trace,
            Level::Debug => log::Level::Debug,
            Level::Info => log::Level::Info,
            Level::Warn => log::Level::Warn,
            Level::Error | Level::Critical => log::Level::Error,
        };
        self.log.line(level, &context, &message);
        Ok(())
    }
}

/// Links the interface under the name that guests built before it had a version import.
pub(super) fn add_without_version(linker: &mut Linker<GuestContext>) -> wasmtime::Result<()> {
    linker.instance(WITHOUT_VERSION)?.func_wrap(
        "log",
        |mut store: StoreContextMut<'_, GuestContext>, (level, context, message): (Level, String, String)| {
            logging::Host::log(store.data_mut(), level, context, message)
        },
    )
}
