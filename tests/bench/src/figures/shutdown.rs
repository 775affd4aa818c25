//! The end of a host at work: 1,000 agents are resident, 64 tasks ask them, and it is told to stop. Timed from the call to the
//! report, when everything is closed. Each ask that was answered must be there at the next start.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use futures::future::join_all;
use godwit::config::HostConfig;
use godwit::host::HostBuilder;
use godwit::runtime::shutdown::Phase;
use godwit::runtime::{Runtime, ShutdownReport};
use godwit_core::id::AgentId;

use crate::bench::{Bench, component, note};
use crate::inside::{ask, populate};
use crate::report::{Findings, Measure, Target};
use crate::samples::Samples;

const AGENTS: u64 = 1_000;
const CLIENTS: usize = 64;
const STOPS: u64 = 10;
/// How long clients work before the host is told to stop.
const WORK: Duration = Duration::from_millis(500);
/// All of them stay resident.
const RESIDENT_MAX: usize = 1_500;
const STOP_NANOS_MAX: f64 = 5e9;

/// Measures it.
pub(super) async fn measure(bench: &Bench) -> Result<Findings> {
    let scratch = bench.scratch()?;
    let config = HostConfig { resident_max: RESIDENT_MAX, ..HostConfig::in_directory(scratch.path()) };
    let names = (0..AGENTS).map(|number| AgentId::parse(&format!("active-{number}")));
    let agents = names.collect::<Result<Vec<_>, _>>()?;
    let component = component("hostile")?;
    let (mut times, mut phases) = (Samples::new(), BTreeMap::<Phase, Samples>::new());
    let mut last: Vec<Option<u64>> = vec![None; agents.len()];
    let mut asked = 0;
    for _ in 0..bench.scaled(STOPS) {
        let host = HostBuilder::new(config.clone()).serves_api(false).start().await?;
        populate(host.runtime(), "hostile", component.clone().into(), &agents, &note()).await?;
        let clients = (0..CLIENTS).map(|client| {
            let mine: Vec<_> = agents.iter().cloned().enumerate().skip(client).step_by(CLIENTS).collect();
            tokio::spawn(ask_until_refused(host.runtime().clone(), mine))
        });
        let clients: Vec<_> = clients.collect();
        tokio::time::sleep(WORK).await;
        let began = Instant::now();
        let report = host.stop().await;
        times.push(began.elapsed());
        check(&report)?;
        for phase in &report.phases {
            phases.entry(phase.phase).or_default().push(phase.elapsed);
        }
        for heard in join_all(clients).await {
            for (place, number) in heard?? {
                // One more for the input that made it active again.
                ensure!(last[place].is_none_or(|last| number > last), "{} lost a turn", agents[place]);
                last[place] = Some(number);
                asked += 1;
            }
        }
    }
    let mut findings = Findings::default();
    let of_phases = phases.iter().map(|(phase, times)| format!("{phase} {:.1} ms", times.p50() / 1e6));
    findings.note(format!(
        "{asked} agents answered meanwhile; p50: {}",
        of_phases.collect::<Vec<_>>().join(", ")
    ));
    findings.row(
        "graceful shutdown, 1,000 active agents",
        None,
        Measure::Tail(times),
        Some(Target::Max(STOP_NANOS_MAX)),
    );
    Ok(findings)
}

fn check(report: &ShutdownReport) -> Result<()> {
    let troubles: Vec<_> = report.troubles().collect();
    ensure!(troubles.is_empty() && report.tasks_left == 0, "{report}");
    ensure!(report.leases_released == AGENTS, "{} leases of {AGENTS}", report.leases_released);
    Ok(())
}

/// Asks each agent in turn for how many inputs it has seen, until the host refuses. Answers the last number of each.
async fn ask_until_refused(runtime: Runtime, agents: Vec<(usize, AgentId)>) -> Result<BTreeMap<usize, u64>> {
    let mut heard = BTreeMap::new();
    let stopping = runtime.shutdown_token();
    for (place, agent) in agents.iter().cycle() {
        match ask(&runtime, agent, "turns").await {
            Ok(number) => {
                let number = number.parse()?;
                ensure!(
                    heard.insert(*place, number).is_none_or(|last| number == last + 1),
                    "{agent}: {number}"
                );
            }
            // Refused, or put back.
            Err(_) if stopping.is_cancelled() => break,
            Err(error) => return Err(error),
        }
    }
    Ok(heard)
}
