//! Ledgers that pay each other. A transfer is a message between agents, so what there is in all stays the same exactly
//! if no message is lost or doubled.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::client::Client;
use crate::fate::{End, Fate};
use crate::random::Random;

/// Largest transfer.
const AMOUNT_MAX: u64 = 200;
/// Longest that one transfer is repeated while hosts come and go.
const REPEAT_MAX: Duration = Duration::from_secs(60);
const REPEAT_AFTER: Duration = Duration::from_millis(15);

/// The ledgers `ledger-00` and up, spread over the hosts.
#[derive(Debug, Clone)]
pub struct Bank {
    doors: Vec<Client>,
    ledgers: u64,
    deposit: u64,
}

/// How transfers ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Transfers {
    /// Paid.
    pub paid: u64,
    /// Refused by the agent for lack of money.
    pub refused: u64,
}

impl Bank {
    /// Creates the ledgers, each with a deposit. The plugin must be loaded.
    ///
    /// # Errors
    /// When a host refuses.
    pub async fn open(doors: Vec<Client>, ledgers: u64, deposit: u64) -> Result<Self> {
        let bank = Self { doors, ledgers, deposit };
        for number in 0..ledgers {
            let home = &bank.doors[number as usize % bank.doors.len()];
            home.create(&ledger(number), "ledger").await?;
            let deposit = json!({ "deposit": deposit }).to_string();
            home.reply(&ledger(number), &deposit).await?;
        }
        Ok(bank)
    }

    /// The agents' names.
    pub fn agents(&self) -> Vec<String> {
        (0..self.ledgers).map(ledger).collect()
    }

    /// What was deposited in all.
    pub fn deposited(&self) -> u64 {
        self.ledgers * self.deposit
    }

    /// Random transfers through random hosts, `clients` at a time; each is repeated under its key until it is known how it
    /// ended.
    ///
    /// # Errors
    /// When a ledger answers what no ledger answers, or a transfer finds no end.
    pub async fn pay(&self, transfers: u64, clients: u64, seed: u64) -> Result<Transfers> {
        let mut tasks = JoinSet::new();
        for client in 0..clients {
            let bank = self.clone();
            tasks.spawn(async move {
                let mut random = Random::from_seed(seed ^ client);
                let mut ended = Transfers::default();
                for number in (client..transfers).step_by(clients as usize) {
                    let key = format!("transfer-{seed}-{number}");
                    if bank.transfer(&mut random, &key).await? {
                        ended.paid += 1;
                    } else {
                        ended.refused += 1;
                    }
                }
                anyhow::Ok(ended)
            });
        }
        let mut all = Transfers::default();
        while let Some(ended) = tasks.join_next().await {
            let ended = ended.context("a client panicked")??;
            all.paid += ended.paid;
            all.refused += ended.refused;
        }
        Ok(all)
    }

    /// One transfer. Answers whether it was paid.
    async fn transfer(&self, random: &mut Random, key: &str) -> Result<bool> {
        let from = random.below(self.ledgers);
        let to = (from + 1 + random.below(self.ledgers - 1)) % self.ledgers;
        let amount = 1 + random.below(AMOUNT_MAX);
        let transfer = json!({ "transfer": { "to": ledger(to), "amount": amount } }).to_string();
        let began = Instant::now();
        loop {
            let door = &self.doors[random.below(self.doors.len() as u64) as usize];
            let fate = door.ask(&ledger(from), transfer.clone(), Some(key)).await;
            match &fate {
                Fate::Accepted(answer) => match &answer.end {
                    End::Reply(_) => return Ok(true),
                    End::AgentRefused(_) => return Ok(false),
                    other => bail!("{} answered {key} with {other:?}", ledger(from)),
                },
                again if again.is_worth_repeating() && began.elapsed() < REPEAT_MAX => {
                    tokio::time::sleep(REPEAT_AFTER).await;
                }
                other => bail!("{key} from {}: {other:?}", ledger(from)),
            }
        }
    }

    /// Every balance, when nothing is on its way any more.
    ///
    /// # Errors
    /// When something still is after `limit`, or a host does not answer.
    pub async fn balances(&self, limit: Duration) -> Result<BTreeMap<String, u64>> {
        // What is sent arrives as an input, and a credit sends nothing: outboxes first, then inboxes.
        let door = &self.doors[0];
        for agent in self.agents() {
            door.delivered(&agent, limit).await?;
        }
        let mut balances = BTreeMap::new();
        for agent in self.agents() {
            door.settled(&agent, limit).await?;
            let reply = door.reply(&agent, r#"{"balance": null}"#).await?;
            let reply: Value = serde_json::from_str(&reply)?;
            let balance = reply["balance"].as_u64();
            balances.insert(agent, balance.with_context(|| format!("no balance in {reply}"))?);
        }
        Ok(balances)
    }

    /// Checks that there is as much money as was deposited. Answers the balances.
    ///
    /// # Errors
    /// When there is more or less.
    pub async fn check(&self, limit: Duration) -> Result<BTreeMap<String, u64>> {
        let balances = self.balances(limit).await?;
        let (total, deposited) = (balances.values().sum::<u64>(), self.deposited());
        if total != deposited {
            bail!("{total} in all, but {deposited} was deposited: {balances:?}");
        }
        Ok(balances)
    }
}

fn ledger(number: u64) -> String {
    format!("ledger-{number:02}")
}
