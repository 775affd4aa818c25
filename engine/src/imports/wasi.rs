//! The part of WASI 0.2 that programs import by themselves, made inert: no environment, no arguments, no terminal; time
//! that stands still; random numbers that can be repeated. Nothing here waits, and what would wait is a fault.
//!
//! The generated traits are those of `wasmtime-wasi`; none of its implementations is used. A resource is its number
//! (there is nothing behind it to keep in a table):
//!
//! | resource | numbers |
//! |---|---|
//! | `pollable` | `READY`, and `PENDING` for a time that this turn will not see |
//! | `input-stream`, `output-stream` | those of `streams.rs` |
//! | `error`, `terminal-input`, `terminal-output` | there is none |

mod streams;

use wasmtime::component::{HasSelf, Linker, Resource, ResourceType};
use wasmtime_wasi::p2::bindings::sync::io as sync_io;
use wasmtime_wasi::p2::bindings::{cli, clocks, random};
use wasmtime_wasi::p2::{DynInputStream, DynOutputStream, DynPollable, IoError};

use crate::context::GuestContext;
use crate::fault::Stop;
use crate::faults;
use crate::limits::RANDOM_BYTES_MAX;

/// A pollable that is ready.
const READY: u32 = 0;
/// A pollable on a later time. Within this turn that time does not come, and no handle outlives its turn.
const PENDING: u32 = 1;

const NANOS_PER_MS: u64 = 1_000_000;
/// The interface of `error`, whose generated half is not public in `wasmtime-wasi`. Guests of other 0.2 versions match.
const IO_ERROR: &str = "wasi:io/error@0.2.12";

/// Links each interface by itself.
pub(super) fn add_to_linker(linker: &mut Linker<GuestContext>) -> wasmtime::Result<()> {
    fn itself(context: &mut GuestContext) -> &mut GuestContext {
        context
    }
    type Itself = HasSelf<GuestContext>;
    add_error(linker)?;
    sync_io::poll::add_to_linker::<GuestContext, Itself>(linker, itself)?;
    sync_io::streams::add_to_linker::<GuestContext, Itself>(linker, itself)?;
    cli::environment::add_to_linker::<GuestContext, Itself>(linker, itself)?;
    cli::exit::add_to_linker::<GuestContext, Itself>(linker, itself)?;
    cli::stdin::add_to_linker::<GuestContext, Itself>(linker, itself)?;
    cli::stdout::add_to_linker::<GuestContext, Itself>(linker, itself)?;
    cli::stderr::add_to_linker::<GuestContext, Itself>(linker, itself)?;
    cli::terminal_input::add_to_linker::<GuestContext, Itself>(linker, itself)?;
    cli::terminal_output::add_to_linker::<GuestContext, Itself>(linker, itself)?;
    cli::terminal_stdin::add_to_linker::<GuestContext, Itself>(linker, itself)?;
    cli::terminal_stdout::add_to_linker::<GuestContext, Itself>(linker, itself)?;
    cli::terminal_stderr::add_to_linker::<GuestContext, Itself>(linker, itself)?;
    clocks::monotonic_clock::add_to_linker::<GuestContext, Itself>(linker, itself)?;
    clocks::wall_clock::add_to_linker::<GuestContext, Itself>(linker, itself)?;
    random::random::add_to_linker::<GuestContext, Itself>(linker, itself)?;
    random::insecure::add_to_linker::<GuestContext, Itself>(linker, itself)?;
    random::insecure_seed::add_to_linker::<GuestContext, Itself>(linker, itself)
}

fn add_error(linker: &mut Linker<GuestContext>) -> wasmtime::Result<()> {
    let mut interface = linker.instance(IO_ERROR)?;
    interface.resource("error", ResourceType::host::<IoError>(), |_, _| Ok(()))?;
    interface.func_wrap("[method]error.to-debug-string", |_, (_,): (Resource<IoError>,)| {
        Ok(("stream error".to_string(),))
    })
}

impl sync_io::poll::Host for GuestContext {
    fn poll(&mut self, pollables: Vec<Resource<DynPollable>>) -> wasmtime::Result<Vec<u32>> {
        let numbered = (0_u32..).zip(&pollables);
        let ready: Vec<_> =
            numbered.filter(|(_, pollable)| pollable.rep() == READY).map(|(index, _)| index).collect();
        if ready.is_empty() {
            return Err(Stop::Blocked { what: "poll" }.into());
        }
        Ok(ready)
    }
}

impl sync_io::poll::HostPollable for GuestContext {
    fn ready(&mut self, pollable: Resource<DynPollable>) -> wasmtime::Result<bool> {
        Ok(pollable.rep() == READY)
    }

    fn block(&mut self, pollable: Resource<DynPollable>) -> wasmtime::Result<()> {
        if pollable.rep() == READY {
            return Ok(());
        }
        Err(Stop::Blocked { what: "pollable.block" }.into())
    }

    fn drop(&mut self, _: Resource<DynPollable>) -> wasmtime::Result<()> {
        Ok(())
    }
}

impl GuestContext {
    /// Turn time in nanoseconds, for both clocks. Wraps after 584 years.
    fn now_ns(&self) -> u64 {
        self.call.turn.now_ms.wrapping_mul(NANOS_PER_MS)
    }

    fn random_bytes(&mut self, count: u64) -> wasmtime::Result<Vec<u8>> {
        let length = usize::try_from(count).ok().filter(|_| count <= RANDOM_BYTES_MAX);
        let Some(length) = length else {
            let what =
                format!("it asked for {count} random bytes at once, of which {RANDOM_BYTES_MAX} are given");
            return Err(Stop::Misuse { what }.into());
        };
        let mut bytes = vec![0; length];
        self.call.random.fill(&mut bytes);
        Ok(bytes)
    }
}

impl clocks::monotonic_clock::Host for GuestContext {
    fn now(&mut self) -> wasmtime::Result<u64> {
        Ok(self.now_ns())
    }

    fn resolution(&mut self) -> wasmtime::Result<u64> {
        Ok(NANOS_PER_MS)
    }

    fn subscribe_instant(&mut self, when: u64) -> wasmtime::Result<Resource<DynPollable>> {
        let is_reached = when <= self.now_ns();
        Ok(Resource::new_own(if is_reached { READY } else { PENDING }))
    }

    fn subscribe_duration(&mut self, duration: u64) -> wasmtime::Result<Resource<DynPollable>> {
        Ok(Resource::new_own(if duration == 0 { READY } else { PENDING }))
    }
}

impl clocks::wall_clock::Host for GuestContext {
    fn now(&mut self) -> wasmtime::Result<clocks::wall_clock::Datetime> {
        let now_ms = faults::real_clock_ms().unwrap_or(self.call.turn.now_ms);
        let subsecond_ms = u32::try_from(now_ms % 1_000).expect("less than 1,000");
        Ok(clocks::wall_clock::Datetime { seconds: now_ms / 1_000, nanoseconds: subsecond_ms * 1_000_000 })
    }

    fn resolution(&mut self) -> wasmtime::Result<clocks::wall_clock::Datetime> {
        Ok(clocks::wall_clock::Datetime { seconds: 0, nanoseconds: 1_000_000 })
    }
}

impl random::random::Host for GuestContext {
    fn get_random_bytes(&mut self, count: u64) -> wasmtime::Result<Vec<u8>> {
        self.random_bytes(count)
    }

    fn get_random_u64(&mut self) -> wasmtime::Result<u64> {
        Ok(self.call.random.next_u64())
    }
}

impl random::insecure::Host for GuestContext {
    fn get_insecure_random_bytes(&mut self, count: u64) -> wasmtime::Result<Vec<u8>> {
        self.random_bytes(count)
    }

    fn get_insecure_random_u64(&mut self) -> wasmtime::Result<u64> {
        Ok(self.call.random.next_u64())
    }
}

impl random::insecure_seed::Host for GuestContext {
    fn insecure_seed(&mut self) -> wasmtime::Result<(u64, u64)> {
        Ok((self.call.random.next_u64(), self.call.random.next_u64()))
    }
}

impl cli::environment::Host for GuestContext {
    fn get_environment(&mut self) -> wasmtime::Result<Vec<(String, String)>> {
        Ok(Vec::new())
    }

    fn get_arguments(&mut self) -> wasmtime::Result<Vec<String>> {
        Ok(Vec::new())
    }

    fn initial_cwd(&mut self) -> wasmtime::Result<Option<String>> {
        Ok(None)
    }
}

impl cli::exit::Host for GuestContext {
    fn exit(&mut self, status: Result<(), ()>) -> wasmtime::Result<()> {
        let code = if status.is_ok() { 0 } else { 1 };
        Err(Stop::Exited { code }.into())
    }

    fn exit_with_code(&mut self, code: u8) -> wasmtime::Result<()> {
        Err(Stop::Exited { code }.into())
    }
}

impl cli::stdin::Host for GuestContext {
    fn get_stdin(&mut self) -> wasmtime::Result<Resource<DynInputStream>> {
        Ok(Resource::new_own(streams::STDIN))
    }
}

impl cli::stdout::Host for GuestContext {
    fn get_stdout(&mut self) -> wasmtime::Result<Resource<DynOutputStream>> {
        Ok(Resource::new_own(streams::STDOUT))
    }
}

impl cli::stderr::Host for GuestContext {
    fn get_stderr(&mut self) -> wasmtime::Result<Resource<DynOutputStream>> {
        Ok(Resource::new_own(streams::STDERR))
    }
}

impl cli::terminal_input::Host for GuestContext {}

impl cli::terminal_input::HostTerminalInput for GuestContext {
    fn drop(&mut self, _: Resource<cli::terminal_input::TerminalInput>) -> wasmtime::Result<()> {
        Ok(())
    }
}

impl cli::terminal_output::Host for GuestContext {}

impl cli::terminal_output::HostTerminalOutput for GuestContext {
    fn drop(&mut self, _: Resource<cli::terminal_output::TerminalOutput>) -> wasmtime::Result<()> {
        Ok(())
    }
}

impl cli::terminal_stdin::Host for GuestContext {
    fn get_terminal_stdin(
        &mut self,
    ) -> wasmtime::Result<Option<Resource<cli::terminal_input::TerminalInput>>> {
        Ok(None)
    }
}

impl cli::terminal_stdout::Host for GuestContext {
    fn get_terminal_stdout(
        &mut self,
    ) -> wasmtime::Result<Option<Resource<cli::terminal_output::TerminalOutput>>> {
        Ok(None)
    }
}

impl cli::terminal_stderr::Host for GuestContext {
    fn get_terminal_stderr(
        &mut self,
    ) -> wasmtime::Result<Option<Resource<cli::terminal_output::TerminalOutput>>> {
        Ok(None)
    }
}

#[cfg(test)]
mod tests;
