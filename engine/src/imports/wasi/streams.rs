//! `wasi:io/streams`: a closed standard input, and standard output and error that go to the guest's log.

use wasmtime::component::Resource;
use wasmtime_wasi::p2::bindings::sync::io::streams::{Host, HostInputStream, HostOutputStream, StreamError};
use wasmtime_wasi::p2::{
    DynInputStream, DynOutputStream, DynPollable, StreamError as TrappableStreamError, StreamResult,
};

use super::READY;
use crate::context::GuestContext;
use crate::fault::Stop;
use crate::limits::STREAM_WRITE_BYTES_MAX;
use crate::log::Stream;

/// The one input stream.
pub(super) const STDIN: u32 = 0;
/// One of the two output streams.
pub(super) const STDOUT: u32 = 1;
/// The other output stream.
pub(super) const STDERR: u32 = 2;

impl Host for GuestContext {
    fn convert_stream_error(&mut self, error: TrappableStreamError) -> wasmtime::Result<StreamError> {
        match error {
            TrappableStreamError::Closed => Ok(StreamError::Closed),
            // No stream of ours fails in a way that a guest could ask about.
            TrappableStreamError::LastOperationFailed(error) | TrappableStreamError::Trap(error) => {
                Err(error)
            }
        }
    }
}

impl HostInputStream for GuestContext {
    fn read(&mut self, _: Resource<DynInputStream>, _: u64) -> StreamResult<Vec<u8>> {
        Err(TrappableStreamError::Closed)
    }

    fn blocking_read(&mut self, _: Resource<DynInputStream>, _: u64) -> StreamResult<Vec<u8>> {
        Err(TrappableStreamError::Closed)
    }

    fn skip(&mut self, _: Resource<DynInputStream>, _: u64) -> StreamResult<u64> {
        Err(TrappableStreamError::Closed)
    }

    fn blocking_skip(&mut self, _: Resource<DynInputStream>, _: u64) -> StreamResult<u64> {
        Err(TrappableStreamError::Closed)
    }

    fn subscribe(&mut self, _: Resource<DynInputStream>) -> wasmtime::Result<Resource<DynPollable>> {
        Ok(Resource::new_own(READY))
    }

    fn drop(&mut self, _: Resource<DynInputStream>) -> wasmtime::Result<()> {
        Ok(())
    }
}

impl GuestContext {
    fn write_stream(&mut self, stream: &Resource<DynOutputStream>, bytes: &[u8]) -> StreamResult<()> {
        check_length(bytes.len() as u64)?;
        let stream = match stream.rep() {
            STDOUT => Stream::Output,
            _ => Stream::Error,
        };
        self.log.write(stream, bytes);
        Ok(())
    }

    fn write_zeroes_to_stream(&mut self, stream: &Resource<DynOutputStream>, count: u64) -> StreamResult<()> {
        check_length(count)?;
        let length = usize::try_from(count).unwrap_or(0);
        self.write_stream(stream, &vec![0; length])
    }
}

fn check_length(bytes: u64) -> StreamResult<()> {
    if bytes <= STREAM_WRITE_BYTES_MAX {
        return Ok(());
    }
    let what = format!("it wrote {bytes} bytes to a stream at once, which takes {STREAM_WRITE_BYTES_MAX}");
    Err(TrappableStreamError::Trap(Stop::Misuse { what }.into()))
}

impl HostOutputStream for GuestContext {
    fn check_write(&mut self, _: Resource<DynOutputStream>) -> StreamResult<u64> {
        Ok(STREAM_WRITE_BYTES_MAX)
    }

    fn write(&mut self, stream: Resource<DynOutputStream>, bytes: Vec<u8>) -> StreamResult<()> {
        self.write_stream(&stream, &bytes)
    }

    fn blocking_write_and_flush(
        &mut self,
        stream: Resource<DynOutputStream>,
        bytes: Vec<u8>,
    ) -> StreamResult<()> {
        self.write_stream(&stream, &bytes)
    }

    fn flush(&mut self, _: Resource<DynOutputStream>) -> StreamResult<()> {
        Ok(())
    }

    fn blocking_flush(&mut self, _: Resource<DynOutputStream>) -> StreamResult<()> {
        Ok(())
    }

    fn subscribe(&mut self, _: Resource<DynOutputStream>) -> wasmtime::Result<Resource<DynPollable>> {
        Ok(Resource::new_own(READY))
    }

    fn write_zeroes(&mut self, stream: Resource<DynOutputStream>, count: u64) -> StreamResult<()> {
        self.write_zeroes_to_stream(&stream, count)
    }

    fn blocking_write_zeroes_and_flush(
        &mut self,
        stream: Resource<DynOutputStream>,
        count: u64,
    ) -> StreamResult<()> {
        self.write_zeroes_to_stream(&stream, count)
    }

    fn splice(
        &mut self,
        _: Resource<DynOutputStream>,
        _: Resource<DynInputStream>,
        _: u64,
    ) -> StreamResult<u64> {
        Err(TrappableStreamError::Closed)
    }

    fn blocking_splice(
        &mut self,
        _: Resource<DynOutputStream>,
        _: Resource<DynInputStream>,
        _: u64,
    ) -> StreamResult<u64> {
        Err(TrappableStreamError::Closed)
    }

    fn drop(&mut self, _: Resource<DynOutputStream>) -> wasmtime::Result<()> {
        Ok(())
    }
}
