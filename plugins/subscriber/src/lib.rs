//! An agent that subscribes, and counts what it hears.
//!
//! | payload | does | reply |
//! |---|---|---|
//! | `subscribe OWNER CHANNEL [TOKEN]` | asks to subscribe, with a token in hex if there is one | the request's id |
//! | `unsubscribe OWNER CHANNEL` | asks that it ends | the request's id |
//! | `publish-to OWNER CHANNEL TOKEN TEXT` | asks to publish TEXT there | the request's id |
//! | `list OWNER CHANNEL TOKEN` | asks who subscribes there | the request's id |
//! | `remove OWNER CHANNEL TOKEN AGENT` | asks to end the subscription of AGENT | the request's id |
//! | `delegate TOKEN KEY RIGHTS UNTIL` | a token that passes on what TOKEN gives, as `issue` of the plugin publisher | the token in hex |
//! | `key` | | its public key, 64 hex digits |
//! | `subscriptions` | | a line each: owner, channel, state, perhaps the reason |
//! | `heard OWNER CHANNEL` | | `FIRST LAST COUNT DISORDER`: numbers of the first and last publication, how many, and how often one did not follow on the one before |
//! | `last` | | the payload of the last publication |
//! | `notes` | | answers and ends so far, a line each: `CHANNEL ANSWER [REASON]`, the newest 64 |
//!
//! The last five work as queries, too. What can't be parsed is `refused("malformed")`.

#![forbid(unsafe_code)]

use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
use godwit_guest::{
    Administration, Agent, AgentError, ChannelError, Host, Input, Map, PublishOptions, Query, ReadHost,
    Reply, Rights, SubscriptionState,
};
use serde::{Deserialize, Serialize};

/// Notes that are kept.
const NOTES_MAX: usize = 64;

/// What it has heard.
#[derive(Default, Serialize, Deserialize)]
pub struct Subscriber {
    heard: Map<String, Heard>,
    last: String,
    notes: Vec<String>,
}

#[derive(Default, Clone, Copy, Serialize, Deserialize)]
struct Heard {
    first: u64,
    last: u64,
    count: u64,
    disorder: u64,
}

impl Heard {
    fn hear(&mut self, number: u64) {
        if self.count == 0 {
            self.first = number;
        } else if number != self.last + 1 {
            self.disorder += 1;
        }
        self.last = number;
        self.count += 1;
    }
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

fn name(owner: &str, channel: &str) -> String {
    format!("{owner} {channel}")
}

fn command(text: &str, host: &mut impl Host) -> Option<Result<String, ChannelError>> {
    if let Some(rest) = text.strip_prefix("publish-to ") {
        let mut parts = rest.splitn(4, ' ');
        let (owner, channel, token) = (parts.next()?, parts.next()?, unhex(parts.next()?)?);
        let options = PublishOptions { content_type: "text/plain".into(), ..PublishOptions::default() };
        return Some(host.publish_to(owner, channel, parts.next()?.as_bytes(), options, &token));
    }
    let words: Vec<&str> = text.split(' ').collect();
    Some(match words[..] {
        ["subscribe", owner, channel] => host.subscribe(owner, channel, None),
        ["subscribe", owner, channel, token] => host.subscribe(owner, channel, Some(&unhex(token)?)),
        ["unsubscribe", owner, channel] => host.unsubscribe(owner, channel),
        ["list", owner, channel, token] => {
            host.administer(owner, channel, Administration::ListSubscribers, &unhex(token)?)
        }
        ["remove", owner, channel, token, agent] => {
            let what = Administration::RemoveSubscriber(agent.to_owned());
            host.administer(owner, channel, what, &unhex(token)?)
        }
        ["delegate", token, key, given, until] => {
            let (token, key) = (unhex(token)?, unhex(key)?);
            let passed = host.token_delegate(&token, &key, Rights::named(given)?, until.parse().ok()?);
            passed.map(|token| HEXLOWER.encode(&token))
        }
        _ => return None,
    })
}

fn subscriptions(host: &mut impl ReadHost) -> Result<String, ChannelError> {
    let line = |subscription: godwit_guest::Subscription| {
        let state = match subscription.state {
            SubscriptionState::Asked => "asked".to_owned(),
            SubscriptionState::Subscribed => "subscribed".to_owned(),
            SubscriptionState::Leaving => "leaving".to_owned(),
            SubscriptionState::Refused(reason) => format!("refused {reason}"),
            SubscriptionState::Ended(reason) => format!("ended {reason}"),
        };
        format!("{} {} {state}", subscription.owner, subscription.channel)
    };
    Ok(host.subscriptions()?.into_iter().map(line).collect::<Vec<_>>().join("\n"))
}

impl Subscriber {
    fn question(&self, text: &str, host: &mut impl ReadHost) -> Option<Result<Reply, AgentError>> {
        let words: Vec<&str> = text.split(' ').collect();
        Some(Ok(Reply::text(match words[..] {
            ["key"] => match host.public_key() {
                Ok(key) => HEXLOWER.encode(&key),
                Err(error) => return Some(Err(error.into())),
            },
            ["subscriptions"] => return Some(reply(subscriptions(host))),
            ["heard", owner, channel] => {
                let heard = self.heard.get(&name(owner, channel)).copied().unwrap_or_default();
                format!("{} {} {} {}", heard.first, heard.last, heard.count, heard.disorder)
            }
            ["last"] => self.last.clone(),
            ["notes"] => self.notes.join("\n"),
            _ => return None,
        })))
    }

    fn note(&mut self, line: String) {
        if self.notes.len() == NOTES_MAX {
            self.notes.remove(0);
        }
        self.notes.push(line);
    }
}

impl Agent for Subscriber {
    fn handle(&mut self, input: &Input, host: &mut impl Host) -> Result<Reply, AgentError> {
        if let Some(publication) = input.publication() {
            let heard = self.heard.entry(name(publication.owner, publication.channel)).or_default();
            heard.hear(publication.number);
            self.last = input.text().unwrap_or_default().to_owned();
            return Ok(Reply::none());
        }
        if let Some(end) = input.channel_end() {
            self.note(format!("{} ended {}", end.channel, end.reason));
            return Ok(Reply::none());
        }
        if let Some(answer) = input.channel_answer() {
            let reason = answer.reason.map(|reason| format!(" {reason}")).unwrap_or_default();
            let told = input
                .text()
                .map(|text| format!(" {}", text.trim_end().replace('\n', ",")))
                .unwrap_or_default();
            self.note(format!("{} {}{reason}{}", answer.channel, answer.answer, told.trim_end()));
            return Ok(Reply::none());
        }
        let Some(text) = input.text() else {
            return Ok(Reply::refused("malformed"));
        };
        if let Some(answer) = self.question(text, host) {
            return answer;
        }
        match command(text, host) {
            Some(called) => reply(called),
            None => Ok(Reply::refused("malformed")),
        }
    }
}

impl Query for Subscriber {
    fn query(&self, payload: &[u8], host: &mut impl ReadHost) -> Result<Reply, AgentError> {
        let text = std::str::from_utf8(payload).unwrap_or_default();
        self.question(text, host).unwrap_or_else(|| Ok(Reply::refused("malformed")))
    }
}

godwit_guest::export!(Subscriber: Query, manifest = include_str!("../godwit.toml"));

#[cfg(test)]
mod tests;
