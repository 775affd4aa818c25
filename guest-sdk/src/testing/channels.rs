//! The channels of an agent under test: its own, what it publishes, and what it asks of others.

use super::host::{Effects, TestHost, is_agent_id};
use crate::limits::{
    CHANNELS_MAX, FAN_OUT_MAX, OUTPUT_BYTES_MAX, OUTPUTS_MAX, SUBSCRIBER_BACKLOG_MAX, SUBSCRIPTIONS_MAX,
    TOKEN_BYTES_MAX, TOKEN_LINKS_MAX, TURN_EFFECT_BYTES_MAX,
};
use crate::{
    Access, Administration, ChannelError, ChannelInfo, Map, Overflow, PublishOptions, Rights, Set,
    Subscription, SubscriptionState,
};

/// A channel of the agent under test.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Channel {
    /// Who may subscribe.
    pub access: Access,
    /// What becomes of slow subscribers.
    pub overflow: Overflow,
    /// Who subscribes; tests put them here.
    pub subscribers: Set<String>,
    /// The most outputs that wait for one of them; tests set it.
    pub backlog: u64,
}

/// What the agent under test has published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// Its id.
    pub id: String,
    /// On which of its channels.
    pub channel: String,
    /// The bytes.
    pub payload: Vec<u8>,
    /// What goes with it.
    pub options: PublishOptions,
}

/// What the agent under test has asked of the owner of a channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// The request's id.
    pub id: String,
    /// Whose channel.
    pub owner: String,
    /// Which.
    pub channel: String,
    /// What.
    pub what: Ask,
    /// The token, if any.
    pub token: Option<Vec<u8>>,
}

/// What can be asked of the owner of a channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    /// To subscribe.
    Subscribe,
    /// That a subscription ends.
    Unsubscribe,
    /// To publish this.
    Publish(Vec<u8>, PublishOptions),
    /// To do this.
    Administer(Administration),
}

/// All of it, as one turn leaves it to the next.
#[derive(Clone, Default)]
pub(super) struct Channels {
    pub(super) own: Map<String, Channel>,
    pub(super) subscriptions: Map<(String, String), SubscriptionState>,
    pub(super) published: Vec<Published>,
    pub(super) asked: Vec<Asked>,
}

fn check_name(text: &str) -> Result<(), ChannelError> {
    match is_agent_id(text) {
        true => Ok(()),
        false => Err(ChannelError::InvalidName(format!("{text:?} is no name"))),
    }
}

fn check_token(token: &[u8]) -> Result<(), ChannelError> {
    if token.len() > TOKEN_BYTES_MAX { Err(ChannelError::TooLarge) } else { Ok(()) }
}

impl Effects {
    /// Takes room for an output of so many bytes; answers its id.
    fn spend_output(&mut self, revision: u64, bytes: usize) -> Result<String, ChannelError> {
        let index = self.outputs();
        if index >= OUTPUTS_MAX || self.bytes + bytes > TURN_EFFECT_BYTES_MAX {
            return Err(ChannelError::Quota);
        }
        self.bytes += bytes;
        Ok(format!("{revision:016x}{index:016x}"))
    }
}

impl TestHost {
    /// The agent's channels after this turn.
    fn channels_now(&mut self) -> &mut Channels {
        let committed = &self.channels;
        self.effects.channels.get_or_insert_with(|| Channels {
            published: Vec::new(),
            asked: Vec::new(),
            ..committed.clone()
        })
    }

    fn own(&mut self, channel: &str) -> Result<&mut Channel, ChannelError> {
        check_name(channel)?;
        self.channels_now().own.get_mut(channel).ok_or(ChannelError::NoChannel)
    }

    fn spend_write(&mut self, bytes: usize) -> Result<(), ChannelError> {
        if self.effects.has_spent(bytes) { Ok(()) } else { Err(ChannelError::Quota) }
    }

    pub(super) fn open(
        &mut self,
        channel: &str,
        access: Access,
        overflow: Overflow,
    ) -> Result<(), ChannelError> {
        check_name(channel)?;
        let own = &self.channels_now().own;
        if !own.contains_key(channel) && own.len() >= CHANNELS_MAX {
            return Err(ChannelError::Quota);
        }
        self.spend_write(channel.len())?;
        let known = self.channels_now().own.entry(channel.into()).or_default();
        (known.access, known.overflow) = (access, overflow);
        Ok(())
    }

    pub(super) fn close(&mut self, channel: &str) -> Result<(), ChannelError> {
        self.own(channel)?;
        self.spend_write(channel.len())?;
        self.channels_now().own.remove(channel);
        Ok(())
    }

    pub(super) fn revoke(&mut self, channel: &str) -> Result<(), ChannelError> {
        self.own(channel)?;
        self.spend_write(channel.len())
    }

    pub(super) fn remove(&mut self, channel: &str, agent: &str) -> Result<(), ChannelError> {
        check_name(agent)?;
        self.own(channel)?;
        self.spend_write(channel.len())?;
        self.own(channel)?.subscribers.remove(agent);
        Ok(())
    }

    pub(super) fn publish_own(
        &mut self,
        channel: &str,
        payload: &[u8],
        options: PublishOptions,
    ) -> Result<String, ChannelError> {
        check_body(payload, &options)?;
        let known = self.own(channel)?;
        if known.overflow == Overflow::Refuse && known.backlog >= SUBSCRIBER_BACKLOG_MAX {
            return Err(ChannelError::Backlogged);
        }
        let copies = known.subscribers.len();
        if self.effects.copies + copies > FAN_OUT_MAX {
            return Err(ChannelError::Quota);
        }
        let id = self.effects.spend_output(self.turn.revision, payload.len())?;
        self.effects.copies += copies;
        let published =
            Published { id: id.clone(), channel: channel.into(), payload: payload.to_vec(), options };
        self.channels_now().published.push(published);
        Ok(id)
    }

    pub(super) fn infos(&mut self) -> Vec<ChannelInfo> {
        let own = self.channels_now().own.iter();
        let info = |(name, channel): (&String, &Channel)| ChannelInfo {
            name: name.clone(),
            access: channel.access,
            overflow: channel.overflow,
            subscribers: u32::try_from(channel.subscribers.len()).unwrap_or(u32::MAX),
            backlog: channel.backlog,
        };
        own.map(info).collect()
    }

    pub(super) fn subscribers(&mut self, channel: &str) -> Result<Vec<String>, ChannelError> {
        Ok(self.own(channel)?.subscribers.iter().cloned().collect())
    }

    pub(super) fn subscriptions_now(&mut self) -> Vec<Subscription> {
        let known = self.channels_now().subscriptions.iter();
        let subscription = |((owner, channel), state): (&(String, String), &SubscriptionState)| {
            Subscription { owner: owner.clone(), channel: channel.clone(), state: state.clone() }
        };
        known.map(subscription).collect()
    }

    /// A token of the test host: a line of text for each link. Nothing but the test host takes it.
    pub(super) fn issued(
        &mut self,
        channel: &str,
        bearer: &[u8],
        rights: Rights,
        expires_at_ms: u64,
    ) -> Result<Vec<u8>, ChannelError> {
        self.own(channel)?;
        check_bearer(bearer)?;
        let owner = self.turn.agent.clone();
        Ok(format!("{owner} {channel} {bearer:?} {rights:?} {expires_at_ms}\n").into_bytes())
    }

    pub(super) fn delegated(
        &mut self,
        token: &[u8],
        bearer: &[u8],
        rights: Rights,
        expires_at_ms: u64,
    ) -> Result<Vec<u8>, ChannelError> {
        check_bearer(bearer)?;
        let text = String::from_utf8_lossy(token).into_owned();
        if text.lines().count() >= TOKEN_LINKS_MAX {
            return Err(ChannelError::Token("too-deep".into()));
        }
        if !text.lines().last().is_some_and(|last| last.contains("delegate: true")) {
            return Err(ChannelError::Token("no-right".into()));
        }
        Ok(format!("{text}{bearer:?} {rights:?} {expires_at_ms}\n").into_bytes())
    }

    pub(super) fn ask(
        &mut self,
        owner: &str,
        channel: &str,
        what: Ask,
        token: Option<&[u8]>,
    ) -> Result<String, ChannelError> {
        check_name(owner)?;
        check_name(channel)?;
        check_token(token.unwrap_or_default())?;
        let mut bytes = 0;
        match &what {
            Ask::Publish(payload, options) => {
                check_body(payload, options)?;
                bytes = payload.len();
            }
            Ask::Administer(Administration::RemoveSubscriber(agent)) => check_name(agent)?,
            Ask::Subscribe | Ask::Unsubscribe | Ask::Administer(Administration::ListSubscribers) => {}
        }
        let key = (owner.to_owned(), channel.to_owned());
        let subscriptions = &self.channels_now().subscriptions;
        let is_new = what == Ask::Subscribe && !subscriptions.contains_key(&key);
        if is_new && subscriptions.len() >= SUBSCRIPTIONS_MAX {
            return Err(ChannelError::Quota);
        }
        let id = self.effects.spend_output(self.turn.revision, bytes)?;
        let now = self.channels_now();
        match &what {
            Ask::Subscribe => {
                now.subscriptions.insert(key, SubscriptionState::Asked);
            }
            Ask::Unsubscribe => {
                if let Some(state) = now.subscriptions.get_mut(&key) {
                    *state = SubscriptionState::Leaving;
                }
            }
            Ask::Publish(..) | Ask::Administer(_) => {}
        }
        let (owner, channel) = (owner.into(), channel.into());
        now.asked.push(Asked { id: id.clone(), owner, channel, what, token: token.map(<[u8]>::to_vec) });
        Ok(id)
    }
}

fn check_bearer(bearer: &[u8]) -> Result<(), ChannelError> {
    match bearer.len() {
        32 => Ok(()),
        bytes => Err(ChannelError::Token(format!("the bearer's public key has {bytes} bytes, not 32"))),
    }
}

fn check_body(payload: &[u8], options: &PublishOptions) -> Result<(), ChannelError> {
    let header_bytes: usize = options.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
    if payload.len() > OUTPUT_BYTES_MAX
        || options.headers.len() > 61
        || header_bytes > 15 * 1024
        || options.content_type.len() > 256
    {
        return Err(ChannelError::TooLarge);
    }
    match options.headers.iter().find(|(name, _)| name.starts_with("godwit-")) {
        Some((name, _)) => Err(ChannelError::InvalidName(format!("the header {name:?} is the host's"))),
        None => Ok(()),
    }
}
