//! Channels over HTTP: an agent's own, who subscribes to them, and what it subscribes to itself.

use axum::Json;
use godwit_core::channel::{ChannelName, ChannelView, Subscriber, Subscription};
use godwit_core::id::AgentId;
use serde::Deserialize;
use serde_json::{Value, json};

use super::extract::{AgentDoor, List, page_limit};
use super::problem::Problem;
use crate::runtime::call::{AgentCall, AgentReply};

/// `GET /v1/agents/{id}/channels`
pub(super) async fn channels(door: AgentDoor) -> Result<Json<List<Value>>, Problem> {
    match door.call(AgentCall::Channels).await?.reply {
        AgentReply::Channels(views) => Ok(Json(List::whole(views.iter().map(channel_json).collect()))),
        _ => Err(Problem::wrong_reply()),
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SubscribersQuery {
    channel: String,
    after: Option<AgentId>,
    limit: Option<usize>,
}

/// `GET /v1/agents/{id}/subscribers?channel=`
pub(super) async fn subscribers(door: AgentDoor<SubscribersQuery>) -> Result<Json<List<Value>>, Problem> {
    let limit = page_limit(door.query.limit)?;
    let channel: ChannelName =
        door.query.channel.parse().map_err(|error| Problem::malformed(format!("{error}")))?;
    let after = door.query.after.clone();
    match door.call(AgentCall::Subscribers { channel, after, limit }).await?.reply {
        AgentReply::Subscribers(rows) => {
            let last = rows.items.last().filter(|_| rows.has_more);
            let next = last.map(|last| last.agent.to_string());
            Ok(Json(List { items: rows.items.iter().map(subscriber_json).collect(), next }))
        }
        _ => Err(Problem::wrong_reply()),
    }
}

/// `GET /v1/agents/{id}/subscriptions`
pub(super) async fn subscriptions(door: AgentDoor) -> Result<Json<List<Value>>, Problem> {
    match door.call(AgentCall::Subscriptions).await?.reply {
        AgentReply::Subscriptions(known) => {
            Ok(Json(List::whole(known.iter().map(subscription_json).collect())))
        }
        _ => Err(Problem::wrong_reply()),
    }
}

fn channel_json(view: &ChannelView) -> Value {
    let channel = &view.channel;
    json!({
        "name": channel.name.as_str(),
        "access": channel.access.name(),
        "overflow": channel.overflow.name(),
        "subscribers": view.subscribers,
        "backlog": view.backlog,
        "next_publication": channel.next_publication.to_string(),
        "tokens_from": channel.tokens_from.to_string(),
        "opened_at_ms": channel.opened_at_ms,
    })
}

fn subscriber_json(subscriber: &Subscriber) -> Value {
    json!({
        "channel": subscriber.channel.as_str(),
        "agent": subscriber.agent.as_str(),
        "since_ms": subscriber.since_ms,
        "by_token": subscriber.permission.is_some(),
        "until_ms": subscriber.permission.map(|permission| permission.until_ms),
    })
}

fn subscription_json(subscription: &Subscription) -> Value {
    json!({
        "owner": subscription.owner.as_str(),
        "channel": subscription.channel.as_str(),
        "state": subscription.state.name(),
        "reason": subscription.state.reason(),
        "since_ms": subscription.since_ms,
    })
}
