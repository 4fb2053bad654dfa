//! Whole messages through `isc`: what comes from the core as text, what leaves compared header by header.
//!
//! `world` is the server side of one thread in virtual time; `inbound` holds the checks of an INVITE, `outbound` the
//! recipients' INVITEs, `answers` what goes back to the originator, `legs` the recipients' answers, `login` requests nobody vouches for, `messages` short pages, `moves` new
//! paths under way, `others` every other
//! request, `edges` what leaves the trust domain or comes into it, `numbers` tel URIs wherever they may stand, `switch` one
//! INVITE under every profile, `registering` what the core tells of its users, `watching` what it is asked of
//! them, `surface` every method in every place, `passing` what only
//! passes through, `relaying` the same as a B2BUA, `pressure` what is sent away first, `noise` what nobody should send,
//! `following` what an XDMS elsewhere is asked to tell, `notifying` what the one here tells others.

mod answers;
mod edges;
mod following;
mod inbound;
mod legs;
mod login;
mod messages;
mod moves;
mod noise;
mod notifying;
mod numbers;
mod others;
mod outbound;
mod passing;
mod pressure;
mod registering;
mod relaying;
mod surface;
mod switch;
mod watching;
mod world;
