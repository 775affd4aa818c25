//! The HTTP API: every route in one table.
//!
//! Handlers translate between HTTP and `Runtime`, and decide nothing: an embedder that calls `Runtime` gets the same
//! behaviour. What is not served is not routed. Every error is a `Problem` (`problem.rs`), those of axum as well.

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::{Method, Uri};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post, put};
use axum::serve::Listener;
use godwit_core::limits::{CONFIG_BYTES_MAX, PAYLOAD_BYTES_MAX, PLUGIN_BYTES_MAX, ROSTER_BYTES_MAX};
use godwit_core::task::TaskGroup;
use godwit_core::time::within;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::timeout::RequestBodyTimeoutLayer;

use self::access::Access;
use self::problem::{Code, Problem};
use crate::config::HostConfig;
use crate::data_dir::DataDirError;
use crate::runtime::Runtime;

mod access;
mod agent_events;
pub(crate) mod agents;
mod archive;
mod backup;
mod channels;
mod events;
mod extract;
mod groups;
pub(crate) mod health;
mod history;
mod hosts;
mod inputs;
mod inspect;
mod migrations;
mod payload;
mod plugins;
pub mod problem;
mod roster;
mod secrets;
mod standby;
mod verbs;

/// A JSON body in bytes: the largest config of an agent, with room for escapes and labels.
const JSON_BYTES_MAX: usize = 4 * CONFIG_BYTES_MAX;
/// A plugin upload in bytes: the component, its manifest, and multipart's own lines.
const UPLOAD_BYTES_MAX: usize = PLUGIN_BYTES_MAX + (1 << 20);
/// How long requests may go on after shutdown has begun; a client that stopped reading is not waited for.
const DRAIN_MAX: Duration = Duration::from_secs(5);
/// Connections at the same time; whoever comes then waits until one ends.
const CONNECTIONS_MAX: usize = 4_096;
/// How long a client may take for its next request, up to the end of its head, and from one piece of a body to the next.
const CLIENT_PAUSE_MAX: Duration = Duration::from_secs(60);

/// All routes, for the listener of this configuration.
///
/// # Errors
/// When the listener is beyond loopback and the token file can't be read or made.
pub fn router(runtime: Runtime, config: &HostConfig) -> Result<Router, DataDirError> {
    let access = Access::of(config)?;
    let guarded = bounded(routes()).layer(middleware::from_fn_with_state(access, access::guard));
    Ok(guarded.layer(CatchPanicLayer::custom(panicked)).with_state(runtime))
}

/// What holds for all routes alike, whatever they do.
fn bounded<S: Clone + Send + Sync + 'static>(routes: Router<S>) -> Router<S> {
    routes
        .fallback(no_route)
        .method_not_allowed_fallback(no_method)
        .layer(DefaultBodyLimit::max(JSON_BYTES_MAX))
        .layer(RequestBodyTimeoutLayer::new(CLIENT_PAUSE_MAX))
}

fn routes() -> Router<Runtime> {
    let input = DefaultBodyLimit::max(PAYLOAD_BYTES_MAX);
    let roster_body = DefaultBodyLimit::max(ROSTER_BYTES_MAX);
    let upload = DefaultBodyLimit::max(UPLOAD_BYTES_MAX);
    Router::new()
        .route("/healthz", get(health::healthz))
        .route("/readyz", get(health::readyz))
        .route("/version", get(health::version))
        .route("/v1/plugins", post(plugins::load).layer(upload).get(plugins::list))
        .route("/v1/plugins/{digest}", get(plugins::show).delete(plugins::remove))
        .route("/v1/agents", get(agents::list))
        .route("/v1/agents/{id}", put(agents::create).get(agents::show).delete(verbs::delete))
        .route("/v1/agents/{id}/{verb}", post(verbs::act))
        .route("/v1/agents/{id}/ask", post(inputs::ask).layer(input))
        .route("/v1/agents/{id}/send", post(inputs::send).layer(input))
        .route("/v1/agents/{id}/enqueue", post(inputs::enqueue).layer(input))
        .route("/v1/agents/{id}/dispatch", post(inputs::dispatch).layer(input))
        .route("/v1/agents/{id}/query", post(inputs::query).layer(input))
        .route("/v1/agents/{id}/inputs", get(inputs::list))
        .route("/v1/agents/{id}/inputs/{input}", get(inputs::one).delete(inputs::cancel))
        .route("/v1/agents/{id}/dead-letters", get(inputs::dead_letters))
        .route("/v1/agents/{id}/dead-letters/{input}", delete(inputs::drop_letter))
        .route("/v1/agents/{id}/dead-letters/{input}/retry", post(inputs::retry))
        .route("/v1/agents/{id}/receipts", get(history::receipts))
        .route("/v1/agents/{id}/outputs", get(history::outputs))
        .route("/v1/agents/{id}/timers", get(history::timers))
        .route("/v1/agents/{id}/operations", get(history::operations))
        .route("/v1/agents/{id}/channels", get(channels::channels))
        .route("/v1/agents/{id}/subscribers", get(channels::subscribers))
        .route("/v1/agents/{id}/subscriptions", get(channels::subscriptions))
        .route("/v1/agents/{id}/events", get(agent_events::events))
        .route("/v1/agents/{id}/inspect", get(inspect::inspect))
        .route("/v1/agents/{id}/wait-output", get(inputs::wait_output))
        .route("/v1/agents/{id}/checkpoint", post(verbs::checkpoint))
        .route("/v1/agents/{id}/upgrade", post(verbs::upgrade))
        .route("/v1/agents/{id}/verify", post(agents::verify))
        .route("/v1/agents/{id}/replay", post(agents::replay))
        .route("/v1/agents/{id}/migrate", post(migrations::start))
        .route("/v1/agents/{id}/adopt", post(migrations::adopt))
        .route("/v1/groups/{group}", get(groups::show))
        .route("/v1/groups/{group}/ask", post(groups::ask).layer(input))
        .route("/v1/groups/{group}/send", post(groups::send).layer(input))
        .route("/v1/agents/{id}/standby", get(standby::show).post(standby::change))
        .route("/v1/agents/{id}/promote", post(standby::promote))
        .route("/v1/standbys", get(standby::copies))
        .route("/v1/migrations", get(migrations::list))
        .route("/v1/expected-migrations", post(migrations::expect))
        .route("/v1/migrations/{id}", get(migrations::show))
        .route("/v1/migrations/{id}/abort", post(migrations::abort))
        .route("/v1/agents/{id}/materialize", post(verbs::materialize))
        .route("/v1/roster", put(roster::apply).layer(roster_body).get(roster::show))
        .route("/v1/reconcile", post(roster::reconcile))
        .route("/v1/edges", get(roster::edges).put(roster::wire).delete(roster::unwire))
        .route("/v1/hosts", get(hosts::list))
        .route("/v1/hosts/{id}/{verb}", post(hosts::act))
        .route("/v1/hosts/{id}/drain", get(hosts::progress).post(hosts::drain))
        .route("/v1/hosts/{id}/counts", get(hosts::counts))
        .route("/v1/peers", get(hosts::peers).post(hosts::add_peer))
        .route("/v1/peers/reload", post(hosts::reload_peers))
        .route("/v1/peers/{key}", delete(hosts::remove_peer))
        .route("/v1/agents/{id}/export", get(archive::export))
        .route("/v1/import", post(archive::import).layer(DefaultBodyLimit::disable()))
        .route("/v1/backup", post(backup::backup))
        .route("/v1/operations", get(history::all_operations))
        .route("/v1/secrets", get(secrets::list))
        .route("/v1/auth-flows", get(secrets::flows).post(secrets::start))
        .route("/v1/auth-flows/{id}", get(secrets::show).delete(secrets::cancel))
        .route("/v1/auth-flows/{id}/complete", post(secrets::complete))
        .route("/v1/events", get(events::events))
}

/// Serves until shutdown, then lets running requests end, for a while.
pub async fn serve(mut listener: TcpListener, router: Router, shutdown: CancellationToken) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(CLIENT_PAUSE_MAX);
    let (tasks, running) = (TaskGroup::default(), GracefulShutdown::new());
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let accept = async {
            let place = Arc::clone(&room).acquire_owned().await.ok();
            (Listener::accept(&mut listener).await.0, place)
        };
        // Cancel safe: a connection that was not taken is refused with the listener.
        let (stream, place) = tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            accepted = accept => accepted,
        };
        // Answers are small; waiting to fill a packet would only add delay.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY refused");
        }
        let service = TowerToHyperService::new(router.clone());
        let connection = running.watch(http.serve_connection(TokioIo::new(stream), service));
        tasks.spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection ended early");
            }
            drop(place);
        });
    }
    drop(listener);
    if within(DRAIN_MAX, running.shutdown()).await.is_none() {
        tracing::warn!("some clients did not end in time");
    }
}

async fn no_route(uri: Uri) -> Problem {
    Problem::new(Code::NoRoute, format!("no such path: {}", uri.path()))
}

async fn no_method(method: Method, uri: Uri) -> Problem {
    let detail = format!("{} does not take {method}", uri.path());
    Problem::new(Code::MethodNotAllowed, detail)
}

fn panicked(_panic: Box<dyn Any + Send + 'static>) -> Response {
    // The panic hook has written what happened and where to stderr; clients learn no internals.
    tracing::error!("a request handler panicked");
    Problem::new(Code::Internal, "the host failed on this request").into_response()
}

#[cfg(test)]
mod tests;
