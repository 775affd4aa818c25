//! Secrets that hosts fill into agents' requests: they arrive, and are nowhere else; and the sign-ins that obtain them.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use godwit_support::authority::Authority;
use godwit_support::binaries;
use godwit_support::client::Method;
use godwit_support::cluster::Folder;
use godwit_support::host::{Host, HostOptions};
use godwit_support::wait::until;
use godwit_support::web::Web;
use serde_json::{Value, json};

use crate::room::{SOON, shared};

const AGENT: &str = "fetcher";
const VALUE: &str = "sk-live-4f9a81c77be2d05e";
/// An ordinary header, for which a search must find what it is looking for.
const ORDINARY: &str = "an-ordinary-header-51c0e7";

/// A host with a web server to ask, and `[secrets]` of its own.
struct Scene {
    folder: Folder,
    host: Host,
    web: Web,
}

impl Scene {
    async fn new(web: Web, secrets: &str) -> Result<Self> {
        let folder = Folder::new()?;
        let file = folder.path().join("godwit.toml");
        let port = target(&web);
        let operations =
            format!("[operations]\nhttp = [\"127.0.0.1:*\"]\nnetworks = [\"127.0.0.1\"]\n{secrets}");
        std::fs::write(&file, operations.replace("TARGET", &port))?;
        std::fs::write(folder.path().join("secret"), format!("{VALUE}\n"))?;
        let options = HostOptions::new(&binaries::product()?, &folder.path().join("host"), "host");
        let file = file.display().to_string();
        // All that there is to log.
        let options = options.arguments(&["--config", &file]).variable("GODWIT_LOG", "trace");
        let host = options.start().await?;
        host.client().load_plugin(&binaries::plugin("fetcher")?).await?;
        host.client().create(AGENT, "fetcher").await?;
        Ok(Self { folder, host, web })
    }

    /// Has the agent ask for a path with a header, and waits until `times` operations have ended.
    async fn fetch(&self, path: &str, header: &str, times: usize) -> Result<String> {
        let door = self.host.client();
        door.reply(AGENT, &format!("fetch {}\n{header}", self.web.url(path))).await?;
        let look = || async { Ok((door.reply(AGENT, "count").await? == times.to_string()).then_some(())) };
        until(&format!("{times} operations to end"), SOON, look).await?;
        door.reply(AGENT, "last").await
    }

    /// Files that have a text: everything that the host has written, and all that it tells about the agent.
    async fn places(&self, text: &str) -> Result<Vec<String>> {
        let mut found = Vec::new();
        look_for(text, self.folder.path(), &mut found)?;
        let door = self.host.client();
        for list in ["inputs", "receipts", "outputs", "operations", "dead-letters"] {
            let rows = Value::from(door.list(&format!("/v1/agents/{AGENT}/{list}")).await?);
            if rows.to_string().contains(text) {
                found.push(list.to_owned());
            }
        }
        for path in [format!("/v1/agents/{AGENT}"), "/v1/secrets".into(), "/v1/auth-flows".into()] {
            if door.get(&path).await?.to_string().contains(text) {
                found.push(path);
            }
        }
        let events = self.host.cli(&["events", "-o", "json"]).await?.ok()?;
        if events.stdout.contains(text) {
            found.push("events".to_owned());
        }
        Ok(found)
    }
}

fn target(web: &Web) -> String {
    web.url("").trim_start_matches("http://").to_owned()
}

/// Names the files below a folder that have a text, apart from those that the test itself has put it in.
fn look_for(text: &str, folder: &Path, found: &mut Vec<String>) -> Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            look_for(text, &path, found)?;
        } else if !path.ends_with("secret") {
            let bytes = std::fs::read(&path)?;
            if bytes.windows(text.len()).any(|part| part == text.as_bytes()) {
                found.push(path.display().to_string());
            }
        }
    }
    Ok(())
}

const GIVEN: &str = "
    [secrets.fetcher]
    file = \"FOLDER/secret\"
    hosts = [\"TARGET\"]
    [secrets.other]
    env = \"NOT_SET\"
    hosts = [\"api.example.com:443\"]
";

async fn given() -> Result<Scene> {
    let mut scene = Scene::new(Web::start().await?, "").await?;
    // The folder's name is known only now.
    let file = scene.folder.path().join("godwit.toml");
    let secrets = GIVEN.replace("FOLDER", &scene.folder.path().display().to_string());
    let text = std::fs::read_to_string(&file)? + &secrets.replace("TARGET", &target(&scene.web));
    std::fs::write(&file, text)?;
    scene.host.terminate().await?;
    scene.host.start(&[]).await?;
    Ok(scene)
}

#[tokio::test]
async fn a_secret_arrives_and_is_nowhere_else() -> Result<()> {
    let _room = shared().await;
    let mut scene = given().await?;
    let header = format!("authorization: Bearer {{{{secret:fetcher}}}}\nx-note: {ORDINARY}");
    let last = scene.fetch("/echo", &header, 1).await?;
    let heads = scene.web.heads();
    let [head] = heads.as_slice() else { anyhow::bail!("{heads:?}") };
    ensure!(head.contains(&format!("\r\nauthorization: Bearer {VALUE}\r\n")), "it did not arrive: {head}");
    ensure!(head.contains(ORDINARY), "{head}");
    let covered = "*".repeat(VALUE.len());
    ensure!(last.starts_with("completed 200") && last.contains(&format!("Bearer {covered}")), "{last}");
    // In each way in which the agent's state is written, and in the log of the store as well as in its file.
    for verb in ["checkpoint", "respawn"] {
        scene.host.client().verb(AGENT, verb).await?;
    }
    let found = scene.places(VALUE).await?;
    ensure!(found.is_empty(), "the value is in {found:?}");
    scene.host.terminate().await?;
    scene.host.start(&[]).await?;
    let found = scene.places(VALUE).await?;
    ensure!(found.is_empty(), "the value is in {found:?}");
    // The negative control: what is no secret is found, in the store and in what is told of it.
    let found = scene.places(ORDINARY).await?;
    let in_store = found.iter().any(|place| place.contains("godwit.db"));
    ensure!(in_store && found.iter().any(|place| place == "inputs"), "the search finds nothing: {found:?}");
    let placeholder = scene.places("{{secret:fetcher}}").await?;
    ensure!(!placeholder.is_empty(), "the name is what is stored");
    // A new value needs no restart.
    std::fs::write(scene.folder.path().join("secret"), "another-value")?;
    scene.fetch("/text", &header, 2).await?;
    ensure!(scene.web.heads()[1].contains("Bearer another-value\r\n"), "{:?}", scene.web.heads());
    scene.host.client().verb(AGENT, "verify").await?;
    Ok(())
}

#[tokio::test]
async fn a_secret_that_can_not_be_filled_in_ends_the_operation() -> Result<()> {
    let _room = shared().await;
    let scene = given().await?;
    let door = scene.host.client();
    // The plugin has no grant for it, or it is none.
    for (value, code) in
        [("{{secret:other}}", "not_granted"), ("{{secret:", "malformed"), ("{{fetcher}}", "malformed")]
    {
        let line = format!("fetch {}\nauthorization: {value}", scene.web.url("/text"));
        let fate = door.ask(AGENT, line, None).await;
        let problem = fate.problem().with_context(|| format!("{value}: {fate:?}"))?;
        ensure!(
            problem.status == 422 && problem.body.to_string().contains(code),
            "{value}: {}",
            problem.body
        );
    }
    // Another target than the operator has listed: the same machine, another port.
    let elsewhere = Web::start().await?;
    let line = format!("fetch {}\nauthorization: {{{{secret:fetcher}}}}", elsewhere.url("/text"));
    door.reply(AGENT, &line).await?;
    let look = || async { Ok((door.reply(AGENT, "count").await? == "1").then_some(())) };
    until("the operation to end", SOON, look).await?;
    let last = door.reply(AGENT, "last").await?;
    ensure!(last.starts_with("failed 0\nsecret fetcher may not be sent to"), "{last}");
    ensure!(last.contains("secrets.fetcher.hosts") && elsewhere.heads().is_empty(), "{last}");
    // No value now.
    std::fs::remove_file(scene.folder.path().join("secret"))?;
    let last = scene.fetch("/text", "authorization: {{secret:fetcher}}", 2).await?;
    ensure!(last.starts_with("failed 0\nsecret fetcher has no value: the file"), "{last}");
    ensure!(scene.web.heads().is_empty(), "something was sent");
    let secrets = door.list("/v1/secrets").await?;
    let shown: Vec<_> =
        secrets.iter().map(|secret| (&secret["name"], &secret["kind"], &secret["has_value"])).collect();
    let expected =
        [(json!("fetcher"), json!("file"), json!(false)), (json!("other"), json!("env"), json!(false))];
    let expected: Vec<_> = expected.iter().map(|(name, kind, has)| (name, kind, has)).collect();
    ensure!(shown == expected, "{secrets:?}");
    let table = scene.host.cli(&["secret", "list"]).await?.ok()?;
    ensure!(table.stdout.contains("fetcher") && table.stdout.contains("NOT_SET"), "{}", table.stdout);
    Ok(())
}

#[tokio::test]
async fn operations_of_all_agents_are_listed() -> Result<()> {
    let _room = shared().await;
    let scene = given().await?;
    let door = scene.host.client();
    door.create("another", "fetcher").await?;
    for agent in [AGENT, "another"] {
        let line = format!("fetch {}\nauthorization: {{{{secret:fetcher}}}}", scene.web.url("/never"));
        door.reply(agent, &line).await?;
    }
    let asked = || async { Ok((scene.web.heads().len() == 2).then_some(())) };
    until("the server to be asked", SOON, asked).await?;
    let listed = door.list("/v1/operations").await?;
    let agents: Vec<_> =
        listed.iter().map(|operation| operation["agent"].as_str().unwrap_or_default()).collect();
    ensure!(agents == ["another", AGENT], "{listed:?}");
    for operation in &listed {
        let known = ["state", "class", "method", "secrets"].map(|name| &operation[name]);
        ensure!(
            known == [&json!("begun"), &json!("at-least-once"), &json!("GET"), &json!(["fetcher"])],
            "{operation}"
        );
        ensure!(operation["target"] == json!(target(&scene.web)), "{operation}");
        ensure!(operation["since_ms"].as_u64().is_some_and(|since| since > 1_700_000_000_000), "{operation}");
        ensure!(!operation.to_string().contains(VALUE), "{operation}");
    }
    let page = door.get("/v1/operations?limit=1").await?;
    ensure!(
        page["items"].as_array().is_some_and(|items| items.len() == 1) && page["next"] == "another",
        "{page}"
    );
    let names = scene.host.cli(&["operations", "-o", "name"]).await?.ok()?;
    ensure!(names.stdout.lines().count() == 2, "{}", names.stdout);
    Ok(())
}

async fn signing_in(life_s: u64) -> Result<(Scene, Authority)> {
    let authority = Authority::start(life_s).await?;
    let scene = Scene::new(Web::start().await?, &authority.section("fetcher", "TARGET")).await?;
    Ok((scene, authority))
}

const BEARER: &str = "authorization: Bearer {{secret:fetcher}}";

#[tokio::test]
async fn a_browser_s_sign_in_obtains_a_secret() -> Result<()> {
    let _room = shared().await;
    // Tokens that live for less than a minute are refreshed each time.
    let (mut scene, authority) = signing_in(30).await?;
    let last = scene.fetch("/text", BEARER, 1).await?;
    ensure!(last.contains("godwit auth start fetcher") && scene.web.heads().is_empty(), "{last}");
    let start = [
        "auth",
        "start",
        "fetcher",
        "--kind",
        "pkce",
        "--redirect-uri",
        "http://127.0.0.1:1/back",
        "-o",
        "json",
    ];
    let flow = scene.host.cli(&start).await?.ok()?.json()?;
    let id = flow["id"].as_str().context("an id")?.to_owned();
    let (code, state) = authority.browse(flow["authorize_url"].as_str().context("a page")?)?;
    // What is open outlives the host.
    scene.host.kill().await?;
    scene.host.start(&[]).await?;
    let wrong = scene.host.cli(&["auth", "complete", &id, "--code", &code, "--state", "another"]).await?;
    ensure!(wrong.code == 4 && wrong.stderr.contains("auth_flow_refused"), "{wrong:?}");
    let done = scene.host.cli(&["auth", "complete", &id, "--code", &code, "--state", &state]).await?.ok()?;
    ensure!(done.stdout.contains("done"), "{done:?}");
    let again = scene.host.cli(&["auth", "complete", &id, "--code", &code, "--state", &state]).await?;
    ensure!(again.code == 4 && again.stderr.contains("auth_flow_over"), "{again:?}");
    for times in [2, 3] {
        let last = scene.fetch("/echo", BEARER, times).await?;
        let token = authority.access_tokens().pop().context("a token")?;
        let heads = scene.web.heads();
        let head = heads.last().context("a request")?;
        ensure!(head.contains(&format!("Bearer {token}\r\n")), "{head}");
        ensure!(last.starts_with("completed 200") && !last.contains(&token), "{last}");
    }
    ensure!(authority.access_tokens().len() == 3, "{:?}", authority.access_tokens());
    ensure!(authority.refused().is_empty(), "{:?}", authority.refused());
    for secret in authority.secrets() {
        let found = scene.places(&secret).await?;
        ensure!(found.is_empty(), "{secret} is in {found:?}");
    }
    let secrets = scene.host.client().list("/v1/secrets").await?;
    ensure!(secrets[0]["has_value"] == true && secrets[0]["kind"] == "oauth", "{secrets:?}");
    Ok(())
}

#[tokio::test]
async fn a_device_s_sign_in_obtains_a_secret() -> Result<()> {
    let _room = shared().await;
    let (mut scene, authority) = signing_in(3_600).await?;
    let door = scene.host.client();
    let start = json!({"secret": "fetcher", "kind": "device"});
    let flow = door.call(Method::POST, "/v1/auth-flows", Some(start.clone())).await?;
    ensure!(
        flow.status == 201 && flow.body["user_code"].as_str().is_some_and(|code| code.starts_with("CODE")),
        "{flow:?}"
    );
    let cancelled = door.call(Method::POST, "/v1/auth-flows", Some(start)).await?;
    let path = cancelled.location.context("a location")?;
    ensure!(door.call(Method::DELETE, &path, None).await?.status == 204, "{path}");
    scene.host.kill().await?;
    scene.host.start(&[]).await?;
    authority.answer_devices(true);
    let path = flow.location.context("a location")?;
    let look = || async { Ok((door.get(&path).await?["state"] == "done").then_some(())) };
    until("the sign-in to be done", SOON, look).await?;
    scene.fetch("/text", BEARER, 1).await?;
    let tokens = authority.access_tokens();
    ensure!(
        tokens.len() == 1 && scene.web.heads()[0].contains(&tokens[0]),
        "{tokens:?} {:?}",
        scene.web.heads()
    );
    let states = scene.host.cli(&["auth", "list", "-o", "json"]).await?.ok()?.json()?;
    let states: Vec<_> =
        states["items"].as_array().context("items")?.iter().map(|flow| &flow["state"]).collect();
    ensure!(states == ["done", "cancelled"], "{states:?}");
    for secret in authority.secrets() {
        let found = scene.places(&secret).await?;
        ensure!(found.is_empty(), "{secret} is in {found:?}");
    }
    // Capacity is bounded, and said.
    let pkce = json!({"secret": "fetcher", "kind": "pkce"});
    let mut last = None;
    for _ in 0..65 {
        last = Some(door.call(Method::POST, "/v1/auth-flows", Some(pkce.clone())).await?);
    }
    let last = last.context("an answer")?;
    ensure!(last.status == 429 && last.body["code"] == "auth_flows_full", "{last:?}");
    Ok(())
}
