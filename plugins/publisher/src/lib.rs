//! An agent with channels.
//!
//! | payload | does | reply |
//! |---|---|---|
//! | `open CHANNEL [by-token] [end]` | opens a channel: for all, or by token; slow subscribers hold it up, or end | `ok` |
//! | `close CHANNEL` | ends it and its subscriptions | `ok` |
//! | `publish CHANNEL TEXT` | publishes TEXT | the publication's id |
//! | `burst CHANNEL COUNT [BYTES]` | publishes COUNT texts in one turn, of so many bytes | `ok` |
//! | `issue CHANNEL KEY RIGHTS UNTIL` | a token for the agent with this public key (64 hex digits), with rights as `publish+subscribe+admin+delegate`, until a time in Unix milliseconds | the token in hex |
//! | `revoke CHANNEL` | makes all tokens worthless | `ok` |
//! | `remove CHANNEL AGENT` | ends a subscription | `ok` |
//! | `subscribers CHANNEL` | | their ids, a line each |
//! | `channels` | | a line each: name, subscribers, the most outputs that wait for one of them |
//!
//! What can't be parsed is `refused("malformed")`; what the host refuses is `refused("no_channel")`, `refused("backlogged")`, or
//! another of these words.

#![forbid(unsafe_code)]

use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
use godwit_guest::{
    Access, Agent, AgentError, ChannelError, Host, Input, Overflow, PublishOptions, ReadHost, Reply, Rights,
};
use serde::{Deserialize, Serialize};

/// How often it has published.
#[derive(Default, Serialize, Deserialize)]
pub struct Publisher {
    published: u64,
}

/// The bytes of a text in hex.
fn unhex(text: &str) -> Option<Vec<u8>> {
    HEXLOWER_PERMISSIVE.decode(text.as_bytes()).ok()
}

/// What a call on channels comes to as a reply: what the host refuses is said to whoever asked.
fn reply(called: Result<String, ChannelError>) -> Result<Reply, AgentError> {
    match called {
        Ok(text) => Ok(Reply::text(text)),
        Err(error) => error.code().map(Reply::refused).ok_or_else(|| error.into()),
    }
}

fn open(channel: &str, options: &[&str], host: &mut impl Host) -> Result<String, ChannelError> {
    let (mut access, mut overflow) = (Access::Open, Overflow::Refuse);
    for option in options {
        match *option {
            "by-token" => access = Access::ByToken,
            "end" => overflow = Overflow::End,
            other => return Err(ChannelError::InvalidName(other.to_owned())),
        }
    }
    host.channel_open(channel, access, overflow)?;
    Ok("ok".to_owned())
}

/// What does not change how often it has published; `None` when it is no such command.
fn command(text: &str, host: &mut impl Host) -> Option<Result<String, ChannelError>> {
    let ok = |()| "ok".to_owned();
    let words: Vec<&str> = text.split(' ').collect();
    Some(match words[..] {
        ["open", channel, ref options @ ..] => open(channel, options, host),
        ["close", channel] => host.channel_close(channel).map(ok),
        ["revoke", channel] => host.tokens_revoke(channel).map(ok),
        ["remove", channel, agent] => host.subscriber_remove(channel, agent).map(ok),
        ["subscribers", channel] => host.channel_subscribers(channel).map(|ids| ids.join("\n")),
        ["channels"] => channels(host),
        ["issue", channel, key, given, until] => {
            let (key, given, until) = (unhex(key)?, Rights::named(given)?, until.parse().ok()?);
            host.token_issue(channel, &key, given, until).map(|token| HEXLOWER.encode(&token))
        }
        _ => return None,
    })
}

fn channels(host: &mut impl ReadHost) -> Result<String, ChannelError> {
    let line =
        |info: godwit_guest::ChannelInfo| format!("{} {} {}", info.name, info.subscribers, info.backlog);
    Ok(host.channel_list()?.into_iter().map(line).collect::<Vec<_>>().join("\n"))
}

impl Publisher {
    fn publish(&mut self, channel: &str, text: &str, host: &mut impl Host) -> Result<String, ChannelError> {
        let options = PublishOptions { content_type: "text/plain".into(), ..PublishOptions::default() };
        let id = host.publish(channel, text.as_bytes(), options)?;
        self.published += 1;
        Ok(id)
    }
}

impl Agent for Publisher {
    fn handle(&mut self, input: &Input, host: &mut impl Host) -> Result<Reply, AgentError> {
        let Some(text) = input.text() else {
            return Ok(Reply::refused("malformed"));
        };
        if let Some((channel, text)) = text.strip_prefix("publish ").and_then(|rest| rest.split_once(' ')) {
            return reply(self.publish(channel, text, host));
        }
        if let Some(burst) = text.strip_prefix("burst ") {
            let words: Vec<&str> = burst.split(' ').collect();
            let (channel, count, bytes) = match words[..] {
                [channel, count] => (channel, count.parse::<usize>().ok(), Some(8)),
                [channel, count, bytes] => (channel, count.parse().ok(), bytes.parse::<usize>().ok()),
                _ => return Ok(Reply::refused("malformed")),
            };
            let (Some(count), Some(bytes)) = (count, bytes.filter(|bytes| *bytes <= 64 * 1024)) else {
                return Ok(Reply::refused("malformed"));
            };
            for _ in 0..count {
                let text = format!("{:0bytes$}", self.published + 1);
                if let Err(error) = self.publish(channel, &text, host) {
                    // A turn that goes wrong half way must not count.
                    return Err(AgentError::Fatal(error.to_string()));
                }
            }
            return Ok(Reply::text("ok"));
        }
        match command(text, host) {
            Some(called) => reply(called),
            None => Ok(Reply::refused("malformed")),
        }
    }
}

godwit_guest::export!(Publisher, manifest = include_str!("../godwit.toml"));

#[cfg(test)]
mod tests;
