//! A listed peer that says to send for an agent that is another host's.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use godwit_core::id::{FencingToken, Generation, HostId, InputId};
use godwit_core::identity::{EntityKey, EntityPublicKey, SignedStatement, Statement};
use godwit_core::input::{DeliveryStamp, Input, Kind, NewInput, Reach, Source};
use godwit_support::binaries;
use godwit_support::check;
use godwit_support::client::Client;
use godwit_support::wait::until;
use serde_json::json;

use super::RESIDENT;
use super::raw::{Request, Said, ask, message};
use super::stage::{Stage, agent};
use crate::room::{SOON, shared};

const SPEAKER: &str = "speaker";
const HEARER: &str = "hearer";
const FRESH: &str = "fresh";
const ACKNOWLEDGED: u8 = 0;

fn input(to: &str, origin: &str, number: u64) -> NewInput {
    let input = Input {
        id: InputId::of_delivery(&agent(origin), Generation(1), &agent(to), number),
        kind: Kind::Message,
        source: Source::Peer { agent: agent(origin), expects_reply: false },
        content_type: "text/plain".into(),
        payload: "add 1000".into(),
        headers: Vec::new(),
        correlation: None,
        accepted_at_ms: 0,
    };
    NewInput { reach: Reach::Any, ..NewInput::of_host(&agent(to), input) }
}

fn stamped(to: &str, grant: &Statement, number: u64) -> NewInput {
    let stamp = DeliveryStamp {
        origin: grant.agent.clone(),
        generation: grant.generation,
        number,
        lowest_open: number,
        token: grant.token,
        host: grant.host,
        origin_hash: None,
        origin_generation: grant.generation,
        is_vouched_for: false,
        channel: None,
    };
    NewInput { delivery: Some(stamp), ..input(to, grant.agent.as_str(), number) }
}

/// A delivery that nobody stands for.
pub(super) fn delivery(to: &str, origin: &str, token: u64, number: u64) -> Vec<u8> {
    let (agent, generation) = (agent(origin), Generation(1));
    let grant = Statement { agent, generation, token: FencingToken(token), host: HostId([0; 32]) };
    message(&Request::Deliver { inputs: vec![stamped(to, &grant, number)], statement: None })
}

async fn speak(door: &Client) -> Result<()> {
    door.reply(SPEAKER, &json!({ "to": HEARER, "payload": "add 1" }).to_string()).await.map(drop)
}

async fn until_heard(door: &Client, sum: u64) -> Result<()> {
    let look = || async { Ok((door.reply(HEARER, "get").await? == sum.to_string()).then_some(())) };
    until(&format!("{HEARER} to hear {SPEAKER} up to {sum}"), SOON, look).await
}

type Attempt = (&'static str, NewInput, Option<Box<SignedStatement>>);

/// What a host says that has neither the agent nor its key.
fn attempts(token: FencingToken, public: EntityPublicKey, host: HostId) -> Result<Vec<Attempt>> {
    let own = EntityKey::from_secret(&[7; 32]);
    let higher = |epochs: u64, counter: u64| {
        let raised = token.raised(epochs).map(|raised| FencingToken(raised.0 + counter));
        raised.context("no room above the token")
    };
    let granted =
        |token: FencingToken| Statement { agent: agent(SPEAKER), generation: Generation(1), token, host };
    let signed = |grant: &Statement| Some(Box::new(SignedStatement::new(&own, grant.clone())));
    let next = granted(higher(0, 1)?);
    let epoch = granted(higher(1, 0)?);
    let local = Statement { agent: agent(RESIDENT), ..granted(FencingToken(1)) };
    let anew = Statement { generation: Generation(2), ..granted(token) };
    let forged = signed(&next).map(|mut forged| {
        forged.public_key = public;
        forged
    });
    let mut named = stamped(HEARER, &next, 2);
    if let Some(stamp) = &mut named.delivery {
        stamp.origin_hash = Some(public.origin_hash());
    }
    Ok(vec![
        ("a higher token", stamped(HEARER, &next, 2), None),
        ("with the agent's hash", named, None),
        ("with a key of its own", stamped(HEARER, &next, 2), signed(&next)),
        ("with the agent's key, and another's signature", stamped(HEARER, &next, 2), forged),
        ("a higher epoch with a key of its own", stamped(HEARER, &epoch, 1 << 33), signed(&epoch)),
        ("another generation with a key of its own", stamped(HEARER, &anew, 1), signed(&anew)),
        (
            "numbers to come, to who has heard nothing",
            stamped(FRESH, &granted(FencingToken(1)), 1 << 40),
            None,
        ),
        (
            "a key of its own, to who has heard nothing",
            stamped(FRESH, &granted(token), 1),
            signed(&granted(token)),
        ),
        ("another one's key, here and not at home", stamped(FRESH, &local, 1), signed(&local)),
    ])
}

/// What the false peer says for another host's agent, once its receiver has heard that. Answers what was believed.
async fn usurp(program: &Path, variables: &[(&str, &str)]) -> Result<Vec<String>> {
    let mut stage = Stage::new(program, variables).await?;
    stage.pair.load(&["relay"]).await?;
    let (a, b) = (stage.pair.a.client(), stage.pair.b.client());
    a.create(SPEAKER, "relay").await?;
    b.create(HEARER, "counter").await?;
    speak(&a).await?;
    until_heard(&b, 1).await?;

    let shown = a.agent(SPEAKER).await?;
    let token = FencingToken(shown.token);
    let public: EntityPublicKey = shown.body["public_key"].as_str().context("no key")?.parse()?;
    // Who lives where that was heard, and has heard nothing itself.
    b.create(FRESH, "counter").await?;
    let attempts = attempts(token, public, stage.liar.key.parse()?)?;
    let connection = stage.liar.greeted(&stage.pair.b).await?;
    let mut believed = Vec::new();
    for (number, (what, input, statement)) in attempts.into_iter().enumerate() {
        let before = stage.states()?;
        let request = message(&Request::Deliver { inputs: vec![input], statement });
        if let Some(folder) = std::env::var_os("GODWIT_RECORD") {
            std::fs::write(Path::new(&folder).join(format!("request-delivery-{number}")), &request)?;
        }
        let said = ask(&connection, &request).await?;
        if said == Said::Delivered(ACKNOWLEDGED) || stage.states()? != before {
            believed.push(format!("{what}: {said:?}"));
        }
    }
    if believed.is_empty() {
        // Its own host is heard as before, and so is the next one.
        speak(&a).await?;
        until_heard(&b, 2).await?;
        a.move_to(SPEAKER, "b", SOON).await?;
        stage.pair.b.client().move_to(SPEAKER, "a", SOON).await?;
        speak(&a).await?;
        until_heard(&b, 3).await?;
        stage.is_well().await?;
    }
    Ok(believed)
}

#[tokio::test]
async fn nobody_sends_for_an_agent_that_is_anothers() -> Result<()> {
    let _room = shared().await;
    check::none("deliveries for another's agent", &usurp(&binaries::product()?, &[]).await?)
}

#[tokio::test]
async fn without_the_check_of_the_sender_the_suite_fails() -> Result<()> {
    let _room = shared().await;
    let found = usurp(&binaries::failpoints()?, &[("GODWIT_BREAK", "no-peer-check")]).await?;
    ensure!(!found.is_empty(), "everybody was believed, and the suite did not see it");
    println!("found: {}", found.join("; "));
    Ok(())
}
