//! Names, what subscribers get, and what an agent knows before its turn has committed.

use super::*;

fn name(text: &str) -> ChannelName {
    text.parse().expect("a name")
}

fn id(text: &str) -> AgentId {
    AgentId::parse(text).expect("an id")
}

#[test]
fn names_are_as_those_of_agents() {
    for good in ["a", "news.of-the_day:7", "0"] {
        assert_eq!(name(good).as_str(), good);
    }
    for bad in ["", "News", "-a", "a b", "a\n", &"x".repeat(CHANNEL_NAME_BYTES_MAX + 1)] {
        assert!(bad.parse::<ChannelName>().is_err(), "{bad:?}");
    }
}

#[test]
fn an_event_has_the_headers_of_the_host_first() {
    let body = Output {
        destination: id("owner"),
        kind: Kind::Event,
        content_type: "text/plain".to_owned(),
        payload: Bytes::from("text"),
        headers: vec![("own".to_owned(), "value".to_owned())],
        correlation: Some("id".to_owned()),
        reply: ReplyRole::None,
        channel: Some(Box::new(ChannelMessage::Publish { channel: name("news") })),
    };
    let (by, channel) = (id("other"), name("news"));
    let publication = Publication { channel: &channel, number: 7, by: Some(&by), body: &body };
    let event = publication.event(&id("subscriber"));
    let headers: Vec<(&str, &str)> =
        event.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert_eq!(
        headers,
        [(CHANNEL_HEADER, "news"), (PUBLICATION_HEADER, "7"), (PUBLISHER_HEADER, "other"), ("own", "value")]
    );
    assert_eq!(
        (event.destination, event.payload, event.correlation),
        (id("subscriber"), body.payload, body.correlation)
    );
    assert_eq!(event.channel.as_deref(), Some(&ChannelMessage::Event { channel: name("news") }));
}

#[test]
fn channels_are_known_as_the_turn_leaves_them() {
    let open = |channel: &str, overflow| ChannelVerb::Open {
        channel: name(channel),
        access: Access::Open,
        overflow,
    };
    let verbs = [
        open("b", Overflow::Refuse),
        open("a", Overflow::Refuse),
        open("b", Overflow::End),
        ChannelVerb::Close { channel: name("a") },
        ChannelVerb::Close { channel: name("never") },
        ChannelVerb::Revoke { channel: name("b") },
        open("c", Overflow::Refuse),
    ];
    let known = verbs.iter().fold(Vec::new(), ChannelView::after);
    let shown: Vec<_> =
        known.iter().map(|view| (view.channel.name.as_str(), view.channel.overflow)).collect();
    assert_eq!(shown, [("b", Overflow::End), ("c", Overflow::Refuse)]);
}

#[test]
fn subscriptions_are_known_as_the_turn_leaves_them() {
    let ask = |owner: &str, what: Ask, id: &str| {
        let asked = ChannelRequest { channel: name("news"), ask: what, token: None };
        request(&AgentId::parse(owner).expect("an id"), asked, Some(id.to_owned()))
    };
    let outputs = [
        ask("b", Ask::Subscribe, "1"),
        ask("a", Ask::Subscribe, "2"),
        ask("never", Ask::Unsubscribe, "3"),
        ask("b", Ask::Unsubscribe, "4"),
        ask("b", Ask::List, "5"),
    ];
    let asked = outputs.iter().filter_map(Subscription::asked_by);
    let known = asked.fold(Vec::new(), |known, asked| asked.put_into(known));
    let shown: Vec<_> =
        known.iter().map(|one| (one.owner.as_str(), one.state.name(), one.request.as_str())).collect();
    assert_eq!(shown, [("a", "asked", "2"), ("b", "leaving", "4")]);
}
