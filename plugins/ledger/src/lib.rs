//! An agent that holds money. `{"deposit": N}`, `{"balance": null}` and `{"transfer": {"to": ID, "amount": N}}` answer with
//! `{"balance": N}`.
//!
//! A transfer takes the amount from here and sends `{"credit": N}` to the other ledger, in one turn: over all ledgers the sum
//! stays the same exactly if no message is lost or doubled. Credit is taken from agents only.

#![forbid(unsafe_code)]

use godwit_guest::{Agent, AgentError, Host, Input, Reply, SendError};
use serde::{Deserialize, Serialize};

/// The balance. Wider than any amount, so that money on its way always has room to arrive.
#[derive(Default, Serialize, Deserialize)]
pub struct Ledger {
    balance: u128,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Request {
    Deposit(u64),
    Balance(()),
    Transfer { to: String, amount: u64 },
    Credit(u64),
}

#[derive(Serialize)]
struct Balance {
    balance: u128,
}

impl Agent for Ledger {
    fn handle(&mut self, input: &Input, host: &mut impl Host) -> Result<Reply, AgentError> {
        match input.json() {
            None => Ok(Reply::refused("malformed")),
            Some(Request::Balance(())) => Ok(self.balance()),
            Some(Request::Deposit(amount)) => self.add(amount),
            Some(Request::Credit(amount)) if input.peer().is_some() => self.add(amount),
            Some(Request::Credit(_)) => Ok(Reply::refused("forbidden")),
            Some(Request::Transfer { to, amount }) => self.transfer(&to, amount, host),
        }
    }
}

impl Ledger {
    fn add(&mut self, amount: u64) -> Result<Reply, AgentError> {
        let sum = self.balance.checked_add(amount.into());
        self.balance = sum.ok_or_else(|| AgentError::fatal("more money than can be counted"))?;
        Ok(self.balance())
    }

    /// Sends before it takes: a turn that can't send takes nothing. To itself and of nothing, there is nothing to send.
    fn transfer(&mut self, to: &str, amount: u64, host: &mut impl Host) -> Result<Reply, AgentError> {
        let Some(rest) = self.balance.checked_sub(amount.into()) else {
            return Ok(Reply::refused("insufficient"));
        };
        if amount == 0 || to == host.turn().agent {
            return Ok(self.balance());
        }
        let credit = format!(r#"{{"credit":{amount}}}"#);
        match host.send_message(to, credit.as_bytes()) {
            Ok(_) => self.balance = rest,
            Err(SendError::BadAgentId) => return Ok(Reply::refused("malformed")),
            Err(error) => return Err(error.into()),
        }
        Ok(self.balance())
    }

    fn balance(&self) -> Reply {
        Reply::json(&Balance { balance: self.balance })
    }
}

godwit_guest::export!(Ledger);

#[cfg(test)]
mod tests;
