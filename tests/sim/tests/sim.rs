//! Seeds.

use godwit_sim::bug::Bug;
use godwit_sim::run::run;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

#[test]
fn one() {
    if let Some(seed) = number("GODWIT_SIM_SEED") {
        let bug = std::env::var("GODWIT_SIM_BUG").ok();
        let bug = bug.map(|name| *Bug::ALL.iter().find(|bug| format!("{bug:?}") == name).expect("a bug"));
        println!("{:?}", run(seed, bug, true));
        return;
    }
    let started = std::time::Instant::now();
    let mut all = godwit_sim::judge::Counts::default();
    for seed in number("FROM").unwrap_or(0)..number("GODWIT_SIM_SEEDS").unwrap_or(20) {
        let (report, again) = (run(seed, None, false), run(seed, None, false));
        if report.hash != again.hash {
            println!("{seed} DIFFERS {report:?} {again:?}");
        }
        all = all.with(report.counts);
        if let Some(violation) = &report.violation {
            println!("{seed}: {}", &violation[..violation.len().min(300)]);
        }
        if number("V").is_some() {
            println!("{report:?}");
        }
    }
    println!("{all:?}");
    println!("{:?}", started.elapsed());
}
