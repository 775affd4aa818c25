//! What tells the rows of an agent apart.

use crate::channel::{Channel, ChannelName, Subscriber, Subscription};
use crate::edge::Edge;
use crate::id::{AgentId, Generation, OperationId, Revision, Seq, SpecRevision};
use crate::output::StoredOutput;
use crate::store::rows::{Row, RowKey, Slot};

/// Names a row of an agent.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::store::memory) enum RowName {
    Agent,
    Spec(SpecRevision),
    Input(Seq),
    Receipt(Generation, Revision),
    Snapshot(Slot),
    Journal(Generation, Revision),
    State(String),
    Output(AgentId, Generation, u64),
    Destination(AgentId, Generation),
    Receiver(AgentId),
    Timer(String),
    ReceiptCheckpoint(Generation),
    Operation(OperationId),
    Edge(AgentId),
    EntityKey,
    Channel(ChannelName),
    Subscriber(ChannelName, AgentId),
    Subscription(AgentId, ChannelName),
}

impl RowName {
    pub(super) fn of(row: &Row) -> Self {
        match row {
            Row::Agent(_) => Self::Agent,
            Row::Spec { revision, .. } => Self::Spec(*revision),
            Row::Input(input) => Self::Input(input.seq),
            Row::Receipt(receipt) => Self::Receipt(receipt.generation, receipt.revision),
            Row::Snapshot { slot, .. } => Self::Snapshot(*slot),
            Row::Journal { generation, revision, .. } => Self::Journal(*generation, *revision),
            Row::State { key, .. } | Row::Deleted(RowKey::State(key)) => Self::State(key.clone()),
            Row::Output(output) => Self::of_output(output),
            Row::Deleted(RowKey::Output(destination, generation, number)) => {
                Self::Output(destination.clone(), *generation, *number)
            }
            Row::Destination { destination, generation, .. } => {
                Self::Destination(destination.clone(), *generation)
            }
            Row::Receiver(receiver) => Self::Receiver(receiver.origin.clone()),
            Row::Timer(timer) => Self::Timer(timer.name.clone()),
            Row::Deleted(RowKey::Timer(name)) => Self::Timer(name.clone()),
            Row::ReceiptCheckpoint(signed) => Self::ReceiptCheckpoint(signed.checkpoint.generation),
            Row::Operation(stored) => Self::Operation(stored.id()),
            Row::Deleted(RowKey::Operation(operation)) => Self::Operation(*operation),
            Row::Edge(Edge { peer, .. }) | Row::Deleted(RowKey::Edge(peer)) => Self::Edge(peer.clone()),
            Row::EntityKey(_) => Self::EntityKey,
            Row::Channel(Channel { name, .. }) | Row::Deleted(RowKey::Channel(name)) => {
                Self::Channel(name.clone())
            }
            Row::Subscriber(Subscriber { channel, agent, .. })
            | Row::Deleted(RowKey::Subscriber(channel, agent)) => {
                Self::Subscriber(channel.clone(), agent.clone())
            }
            Row::Subscription(Subscription { owner, channel, .. })
            | Row::Deleted(RowKey::Subscription(owner, channel)) => {
                Self::Subscription(owner.clone(), channel.clone())
            }
        }
    }

    pub(super) fn of_output(output: &StoredOutput) -> Self {
        Self::Output(output.output.destination.clone(), output.generation, output.number)
    }
}
