//! Scene: twenty ledgers on two hosts pay each other; what there is in all stays the same.

use std::time::Instant;

use anyhow::{Result, ensure};
use godwit_support::bank::{Bank, Transfers};
use godwit_support::cluster::Cluster;
use godwit_support::random::Random;

use crate::SOON;
use crate::screen::{say, section};

const LEDGERS: u64 = 20;
const DEPOSIT: u64 = 1_000;
const TRANSFERS: u64 = 2_000;
/// Transfers under way at a time.
const CLIENTS: u64 = 16;

/// Plays the scene.
pub(crate) async fn run(pair: &Cluster) -> Result<()> {
    section(
        "Twenty ledgers on both hosts pay each other: the total stays only if no message is lost or doubled",
    );
    let bank = Bank::open(pair.doors(), LEDGERS, DEPOSIT).await?;
    let began = Instant::now();
    let Transfers { paid, refused } = bank.pay(TRANSFERS, CLIENTS, Random::unprinted().draw()).await?;
    ensure!(paid + refused == TRANSFERS, "{paid} and {refused} transfers are not {TRANSFERS}");
    let seconds = began.elapsed().as_secs_f64();
    say(format!(
        "{TRANSFERS} transfers in {seconds:.1} s ({:.0}/s): {paid} paid, {refused} refused for lack of money",
        TRANSFERS as f64 / seconds
    ));
    let balances = bank.check(SOON).await?;
    say(format!(
        "all messages delivered; the total is {}, as deposited; balances from {} to {}",
        bank.deposited(),
        balances.values().min().unwrap_or(&0),
        balances.values().max().unwrap_or(&0)
    ));
    Ok(())
}
