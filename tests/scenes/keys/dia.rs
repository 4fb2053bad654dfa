//! `dia.*`: the connections to the HSS, as it sees them.

use pagecast::sh::dictionary::command;

use super::{cases, outcome};
use crate::hss::Question;
use crate::net::{Net, millis, seconds};
use crate::text::invite;

cases! {
    "dia.tc" with "sh.enabled=true" {
        "'30s'" => "not again within 20 s",
        "'10s'" => "again within 20 s",
    } broken;
    "dia.twinit" with "sh.enabled=true" { "'30s'" => "DWR after 30 s", "'60s'" => "DWR after 60 s", } quiet;
    "dia.cea_timeout" with "sh.enabled=true" {
        "'10s'" => "given up late",
        "'2s'" => "given up early",
    } mute;
    "dia.request_timeout" with "sh.enabled=true" {
        "'4s'" => "again after 4000 ms",
        "'1s'" => "again after 1000 ms",
    } silent;
    "dia.max_message" with "sh.enabled=true" {
        "'64KiB'" => "1 connection",
        "'4KiB'" => "2 connections",
    } a_long_answer;
    "dia.also_plain_auth_app" with "sh.enabled=true" { "false" => "once", "true" => "twice", } announced;
    "sh.max_inflight" with "sh.enabled=true" { "200" => "at once", "1" => "one by one", } many_questions;
}

const ALICE: &str = "sip:alice@ims.test";
const BOB: &str = "sip:bob@ims.test";

async fn broken(net: Net) -> String {
    net.after(millis(10)).await;
    net.hss().base();
    net.hss().goes();
    net.after(seconds(20)).await;
    let again = net.hss().base().iter().any(|base| base.command == 0);
    if again { "again within 20 s" } else { "not again within 20 s" }.to_owned()
}

async fn quiet(net: Net) -> String {
    net.after(seconds(70)).await;
    let base = net.hss().base();
    let at = |command| base.iter().find(|base| base.command == command).map(|base| base.at);
    let cer = at(command::CAPABILITIES).expect("a CER");
    let waited = at(command::WATCHDOG).map(|dwr| (dwr - cer).as_secs_f64());
    // Two seconds more or less are drawn each time.
    waited.map_or_else(
        || "no DWR".to_owned(),
        |s| format!("DWR after {:.0} s", (s / 10.0).round() * 10.0),
    )
}

/// How long until the next attempt: the wait for the CEA, and Tc with its tenth.
async fn mute(net: Net) -> String {
    net.after(millis(10)).await;
    net.hss().goes();
    net.hss().falls_mute();
    net.hss().comes_back();
    net.hss().base();
    net.after(seconds(90)).await;
    let base = net.hss().base();
    let mut tries = base.iter().filter(|base| base.command == 0).map(|base| base.at);
    match (tries.next(), tries.next()) {
        (Some(first), Some(second)) if second - first < seconds(36) => "given up early".to_owned(),
        (Some(_), Some(_)) => "given up late".to_owned(),
        other => format!("{other:?}"),
    }
}

/// Alice sends a page and nobody takes it; what was asked within the time.
async fn asked(net: &Net, within: u64) -> Vec<Question> {
    outcome(net, invite().to(["bob"])).await;
    net.after(seconds(within)).await;
    while net.scscf().takes_any().is_some() {}
    net.hss().questions()
}

async fn silent(net: Net) -> String {
    net.after(millis(10)).await;
    net.hss().falls_silent(true);
    let asked = asked(&net, 10).await;
    let mut same = asked
        .iter()
        .filter(|q| q.identity == asked[0].identity && q.references == asked[0].references)
        .map(|q| q.at);
    match (same.next(), same.next()) {
        (Some(first), Some(second)) => format!("again after {} ms", (second - first).as_millis()),
        other => format!("{other:?}"),
    }
}

async fn a_long_answer(net: Net) -> String {
    net.after(millis(10)).await;
    let many: Vec<String> = (0..200).map(|n| format!("sip:alice.{n}@ims.test")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).chain([ALICE]).collect();
    net.hss().names(ALICE, &many).names(BOB, &[BOB]);
    asked(&net, 60).await;
    let connections = net.hss().base().iter().filter(|base| base.command == 0).count();
    match connections {
        1 => "1 connection".to_owned(),
        more => format!("{more} connections"),
    }
}

async fn announced(net: Net) -> String {
    net.after(millis(10)).await;
    let base = net.hss().base();
    let cer = base.iter().find(|base| base.command == command::CAPABILITIES).expect("a CER");
    if cer.plain { "twice" } else { "once" }.to_owned()
}

async fn many_questions(net: Net) -> String {
    net.after(millis(10)).await;
    net.hss().falls_silent(true);
    let asked = asked(&net, 0).await;
    let first = asked.first().expect("something is asked").at;
    let at_once = asked.iter().filter(|q| q.at - first < millis(50)).count();
    if at_once > 1 { "at once" } else { "one by one" }.to_owned()
}
