//! Tests of the command line's grammar.

use clap::CommandFactory;

use super::*;

const KEY: &str = "abababababababababababababababababababababababababababababababab";
const ID: &str = "01890a5d-ac96-774b-bcce-b302099a8057";

fn parse(line: &str) -> Result<Cli, clap::Error> {
    let words = line.split_whitespace();
    Cli::try_parse_from(std::iter::once("godwit").chain(words))
}

#[test]
fn the_grammar_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn every_documented_line_is_understood() {
    let lines = [
        "serve",
        "serve --config f --data d --store sqlite:x --listen 127.0.0.1:0 --mesh 127.0.0.1:0 --name n --lease-profile fast",
        "serve --peer K@A --peer K@B",
        "serve --help-config",
        "key",
        "key --data d",
        "version",
        "peer add KEY@127.0.0.1:1",
        "peer list",
        "peer remove KEY",
        "plugin load f.wasm --manifest m.toml --name n --version 1.2.3",
        "plugin list",
        "plugin show counter@0.1.0",
        "plugin remove counter",
        "agent create c-1 --plugin counter@0.1.0 --config a=1 --config b=x=y --label team=blue",
        "agent list",
        "agent list --label team=blue --state active",
        "agent show c-1",
        "agent checkpoint c-1",
        "agent configure c-1 --config a=1 --config b=2 --no-labels --policy journal",
        "agent configure c-1 --label team=blue --silent-intent fyi --spec-revision 3",
        "agent configure c-1 --no-config --no-silent-intents",
        "agent destroy c-1",
        "agent create c-1 --plugin counter --on b --require gpu=yes",
        "group create workers --replicas 3 --plugin counter --label team=blue --require gpu=yes",
        "group show workers",
        "group ask workers get --key k --timeout-ms 5",
        "group send workers --file f",
        "ask c-1",
        "ask c-1 get",
        "ask c-1 - --key k --type text/plain --timeout-ms 5",
        "send c-1 --file f",
        "send c-1 --key k --file f",
        "inputs c-1",
        "inputs c-1 ID",
        "inputs c-1 --state dead-lettered --after 3",
        "dead-letters c-1",
        "dead-letters list c-1",
        "dead-letters retry c-1 ID",
        "receipts c-1 --after 3",
        "outputs c-1",
        "timers c-1",
        "operations c-1",
        "channels c-1",
        "channels c-1 news",
        "subscriptions c-1",
        "verify c-1",
        "replay c-1",
        "replay c-1 --to 7",
        "verify --store sqlite:x",
        "migrate c-1 --to b --wait",
        "migrations",
        "migration show ID",
        "migration abort ID",
        "hosts",
        "events",
        "events --follow --agent c-1 --after 5 --kind fenced",
        "hosts -o json --quiet --url http://127.0.0.1:1 --api-token t",
        "--url http://127.0.0.1:1 -o name agent list",
    ];
    for line in lines {
        let line = line.replace("KEY", KEY).replace("ID", ID);
        if let Err(error) = parse(&line) {
            panic!("{line}: {error}");
        }
    }
}

#[test]
fn copies_are_asked_for_looked_at_and_taken_up() {
    let lines = [
        "agent standby c-1 --on b",
        "agent standby c-1 --off --force",
        "agent standby c-1",
        "agent promote c-1 --force",
        "standbys",
    ];
    for line in lines {
        parse(line).unwrap_or_else(|error| panic!("{line}: {error}"));
    }
}

#[test]
fn what_can_not_be_meant_is_a_usage_error() {
    let lines = [
        "",
        "nothing",
        "ask",
        "ask BAD",
        "ask c-1 x --file f",
        "agent create c-1",
        "agent create c-1 --plugin p --config novalue",
        "agent standby c-1 --on b --off",
        "agent standby c-1 --force",
        "group create workers --plugin p",
        "group create workers --replicas 0 --plugin p",
        "group ask BAD",
        "agent configure c-1",
        "agent configure c-1 --spec-revision 3",
        "agent configure c-1 --config a=1 --no-config",
        "agent configure c-1 --policy none",
        "inputs c-1 --state gone",
        "inputs c-1 not-an-id",
        "dead-letters",
        "dead-letters retry c-1",
        "verify",
        "verify c-1 --store sqlite:x",
        "migrate c-1",
        "migration show x",
        "peer add KEY",
        "peer remove x",
        "hosts -o xml",
    ];
    for line in lines {
        let error = parse(&line.replace("KEY", KEY)).map(|_| ()).unwrap_err();
        assert!(error.use_stderr() && error.exit_code() == 2, "{line}: {error}");
    }
}

#[test]
fn a_host_is_named_by_flag_or_default() {
    let flags = parse("hosts --url http://h:1 -o yaml").unwrap().client;
    assert_eq!((flags.url.as_str(), flags.output, flags.quiet), ("http://h:1", Format::Yaml, false));
}
