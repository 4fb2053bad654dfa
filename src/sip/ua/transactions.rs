//! Moves the transaction machines and does what they say.

use std::time::Instant;

use bytes::Bytes;

use super::table::Key;
use super::timers::Token;
use super::types::{Event, Failure, Reply, RequestKey, SendKey, Through, Whose};
use super::{Due, Ua, wire};
use crate::sip::message::{Message, Method, Name};
use crate::sip::transaction::{
    Action, Actions, Client, Event as Move, InviteClient, InviteServer, Server, Terms, Timer,
};
use crate::sip::{Flow, Target};

/// One transaction of either direction. Boxed: what waits for its end shall cost what it holds, no more.
#[derive(Debug)]
pub enum Transaction {
    Client(Box<ClientTransaction>),
    Server(Box<ServerTransaction>),
}

/// Who hears of the responses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientUser {
    /// The call's opening INVITE.
    Invite,
    /// A session refresh of the call.
    Refresh,
    /// CANCEL, PRACK, BYE: whatever the answer, nothing follows.
    Silent,
    /// [`Event::Response`].
    OutOfDialog,
    /// A subscription of ours.
    Subscribe(Key),
    /// A subscription of the peer.
    Notify(Key),
    /// [`Event::Through`].
    Through,
}

/// Next hop, alternate and size of [`Target::NextHop`].
pub type Way = (String, u16, usize);

#[derive(Debug)]
pub struct ClientTransaction {
    machine: ClientMachine,
    pub request: Bytes,
    branch: u64,
    is_cancel: bool,
    next_hop: String,
    attempt: u16,
    /// How large it counts at least where UDP and TCP are told apart.
    octets: usize,
    reliable: bool,
    user: ClientUser,
    call: Option<Key>,
    timers: [Option<Token>; 2],
    /// The alternate at another address, where RFC 3263 knows one.
    pub alternate: Option<u16>,
    /// The 503 of the hop before this one: what is told if no other can be reached.
    last: Option<Message>,
}

#[derive(Debug, Clone, Copy)]
enum ClientMachine {
    Invite(InviteClient),
    Other(Client),
}

/// Who answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServerUser {
    /// The INVITE that opened this call.
    Invite(Key),
    /// A re-INVITE or UPDATE of this call that was handed up.
    Offer(Key),
    /// Another request handed up.
    Requested,
    /// The user agent itself.
    Own,
    /// A request that passes through.
    Through,
}

#[derive(Debug)]
pub struct ServerTransaction {
    machine: ServerMachine,
    key: u128,
    arrival: Option<u128>,
    pub flow: Flow,
    /// Dropped with the final answer.
    pub request: Option<Message>,
    /// Our To-tag, where the request had none.
    pub tag: Box<str>,
    /// The last response.
    response: Bytes,
    pub user: ServerUser,
    /// The call it belongs to, for call flows.
    pub call: Option<Key>,
    timers: [Option<Token>; 2],
}

#[derive(Debug, Clone, Copy)]
enum ServerMachine {
    Invite(InviteServer),
    Other(Server),
}

impl ServerTransaction {
    /// An INVITE that was refused and waits for its ACK, or has it.
    pub fn is_refused(&self) -> bool {
        use InviteServer::{Completed, Confirmed};
        matches!(self.machine, ServerMachine::Invite(Completed { .. } | Confirmed))
    }

    /// Nobody has given a final answer.
    pub fn is_open(&self) -> bool {
        self.request.is_some()
    }

    /// Octets of messages kept.
    fn kept(&self) -> usize {
        self.response.len() + self.request.as_ref().map_or(0, |request| request.bytes().len())
    }
}

impl Ua {
    // --- client ---

    /// Sends a request. `next_hop` is a URI; `call` hears of it by `user` and lives as long as the transaction.
    pub(super) fn open_client(
        &mut self,
        now: Instant,
        request: Bytes,
        branch: u64,
        next_hop: String,
        user: ClientUser,
        call: Option<Key>,
    ) -> Key {
        self.open_client_at(now, request, branch, (next_hop, 0, 0), user, call)
    }

    pub(super) fn open_client_at(
        &mut self,
        now: Instant,
        request: Bytes,
        branch: u64,
        (next_hop, attempt, octets): Way,
        user: ClientUser,
        call: Option<Key>,
    ) -> Key {
        let is_cancel = request.starts_with(b"CANCEL ");
        let is_invite = request.starts_with(b"INVITE ");
        let terms = Terms { timers: self.settings.timers, reliable: false };
        let mut actions = Actions::new();
        let machine = if is_invite {
            ClientMachine::Invite(InviteClient::start(&terms, &mut actions))
        } else {
            ClientMachine::Other(Client::start(&terms, &mut actions))
        };
        if let Some(call) = call.and_then(|call| self.calls.get_mut(call)) {
            call.holds += 1;
        }
        let key = self.transactions.insert(Transaction::Client(Box::new(ClientTransaction {
            machine,
            request,
            branch,
            is_cancel,
            next_hop,
            attempt,
            octets,
            reliable: false,
            user,
            call,
            timers: [None, None],
            alternate: None,
            last: None,
        })));
        self.clients.insert((branch, is_cancel), key);
        self.counts.client_transactions += 1;
        self.act_client(now, key, actions, None, true);
        key
    }

    pub(super) fn client(&self, key: Key) -> Option<&ClientTransaction> {
        match self.transactions.get(key)? {
            Transaction::Client(client) => Some(client),
            Transaction::Server(_) => None,
        }
    }

    pub(super) fn client_mut(&mut self, key: Key) -> Option<&mut ClientTransaction> {
        match self.transactions.get_mut(key)? {
            Transaction::Client(client) => Some(client),
            Transaction::Server(_) => None,
        }
    }

    pub(super) fn receive_response(&mut self, now: Instant, message: &Message) {
        let method = message.cseq().method;
        let branch =
            message.via().branch.and_then(|branch| wire::own_branch(branch, self.settings.thread));
        let key = branch
            .and_then(|branch| self.clients.get(&(branch, method == Method::Cancel)).copied());
        // RFC 3261 §17.1.3; and a number that is not ours must not reach a dialog.
        let cseq = message.cseq();
        let fits = key.filter(|key| {
            let asked = self.client(*key).and_then(|client| wire::cseq(&client.request));
            asked == Some((cseq.number, cseq.method.as_str()))
        });
        let (Some(key), Some(status)) = (fits, message.status()) else {
            self.counts.stray += 1;
            self.event(Event::Stray { message: message.clone() });
            return;
        };
        if status == 503 {
            self.note_unavailable(key, message);
            if self.leaves_busy_hop(key) {
                self.leave_hop(now, key, Some(message));
                return;
            }
        }
        self.drive_client(now, key, Move::Response(status), Some(message));
    }

    pub(super) fn went_reliably(&mut self, now: Instant, key: Key) {
        if let Some(client) = self.client_mut(key) {
            client.reliable = true;
            self.drive_client(now, key, Move::Reliable, None);
        }
    }

    pub(super) fn client_send_failed(&mut self, now: Instant, key: Key, more: bool) {
        let Some(client) = self.client(key) else {
            return;
        };
        // A CANCEL has to follow its INVITE: there is no other way for it.
        if more && client.is_unanswered() && !client.is_cancel {
            let next = client.attempt.saturating_add(1);
            self.start_over(now, key, next);
        } else {
            self.drive_client(now, key, Move::Broken, None);
        }
    }

    /// The same request to another place, in a new branch.
    fn start_over(&mut self, now: Instant, key: Key, attempt: u16) {
        let branch = self.random.next_u64();
        let terms = Terms { timers: self.settings.timers, reliable: false };
        let Some(client) = self.client_mut(key) else {
            return;
        };
        let mut actions = Actions::new();
        let old = client.branch;
        client.machine = match client.machine {
            ClientMachine::Invite(_) => {
                ClientMachine::Invite(InviteClient::start(&terms, &mut actions))
            }
            ClientMachine::Other(_) => ClientMachine::Other(Client::start(&terms, &mut actions)),
        };
        client.request = wire::with_branch(&client.request, branch);
        client.branch = branch;
        client.attempt = attempt;
        client.reliable = false;
        client.alternate = None;
        if self.clients.get(&(old, false)) == Some(&key) {
            self.clients.remove(&(old, false));
        }
        self.clients.insert((branch, false), key);
        self.act_client(now, key, actions, None, true);
    }

    /// Goes to the alternate at another address, which has to be there. What a 503 still asks for at the old one is done
    /// by a transaction that stays behind: its ACK, and that of each repetition.
    pub(super) fn leave_hop(&mut self, now: Instant, key: Key, busy: Option<&Message>) {
        let Some(client) = self.client_mut(key) else {
            return;
        };
        let Some(attempt) = client.alternate else {
            return;
        };
        if let Some(busy) = busy {
            client.last = Some(busy.clone());
        }
        let timers = std::mem::take(&mut client.timers);
        let left =
            busy.filter(|_| matches!(client.machine, ClientMachine::Invite(_))).map(|busy| {
                let stays = ClientTransaction {
                    machine: client.machine,
                    request: client.request.clone(),
                    branch: client.branch,
                    is_cancel: false,
                    next_hop: client.next_hop.clone(),
                    attempt: client.attempt,
                    octets: client.octets,
                    reliable: client.reliable,
                    user: ClientUser::Silent,
                    call: client.call,
                    timers: [None, None],
                    alternate: None,
                    last: None,
                };
                (stays, busy)
            });
        for token in timers {
            self.stop_timer(token);
        }
        if let Some((stays, busy)) = left {
            if let Some(call) = stays.call.and_then(|call| self.calls.get_mut(call)) {
                call.holds += 1;
            }
            let branch = stays.branch;
            let behind = self.transactions.insert(Transaction::Client(Box::new(stays)));
            self.counts.client_transactions += 1;
            self.clients.insert((branch, false), behind);
            self.drive_client(now, behind, Move::Response(503), Some(busy));
        }
        self.start_over(now, key, attempt);
    }

    fn drive_client(&mut self, now: Instant, key: Key, event: Move, message: Option<&Message>) {
        let timers = self.settings.timers;
        let Some(client) = self.client_mut(key) else {
            return;
        };
        let terms = Terms { timers, reliable: client.reliable };
        let mut actions = Actions::new();
        client.machine = match client.machine {
            ClientMachine::Invite(machine) => {
                ClientMachine::Invite(machine.on(event, &terms, &mut actions))
            }
            ClientMachine::Other(machine) => {
                ClientMachine::Other(machine.on(event, &terms, &mut actions))
            }
        };
        self.act_client(now, key, actions, message, false);
    }

    fn act_client(
        &mut self,
        now: Instant,
        key: Key,
        actions: Actions,
        message: Option<&Message>,
        first: bool,
    ) {
        for action in actions {
            let Some(client) = self.client(key) else {
                return;
            };
            let (user, call) = (client.user, client.call);
            match action {
                Action::Transmit => {
                    if !first {
                        self.counts.retransmissions_sent += 1;
                    }
                    self.transmit(key);
                }
                Action::Ack => {
                    let response =
                        message.expect("a machine acknowledges only when a response moves it");
                    let bytes = wire::ack(&client.request, response);
                    let (uri, attempt, octets) = client.way();
                    self.send(SendKey::NONE, Target::NextHop { uri, attempt, octets }, bytes, call);
                }
                Action::Deliver => {
                    let response =
                        message.expect("a machine delivers only when a response moves it");
                    self.deliver(now, key, user, call, response);
                }
                Action::TimedOut => self.no_answer(now, key, user, call, Failure::Timeout),
                Action::Failed => {
                    match self.client_mut(key).and_then(|client| client.last.take()) {
                        Some(busy) => self.deliver(now, key, user, call, &busy),
                        None => self.no_answer(now, key, user, call, Failure::Transport),
                    }
                }
                Action::Start(timer, after) => {
                    let token = self.timers.start(now + after, Due::Transaction(key, timer));
                    let old = self
                        .client_mut(key)
                        .and_then(|client| client.timers[place(timer)].replace(token));
                    self.stop_timer(old);
                }
                Action::Stop(timer) => {
                    let old =
                        self.client_mut(key).and_then(|client| client.timers[place(timer)].take());
                    self.stop_timer(old);
                }
                Action::Finish => self.drop_client(key),
            }
        }
    }

    fn transmit(&mut self, key: Key) {
        if let Some(client) = self.client(key) {
            let (to, bytes, call) = (client.target(), client.request.clone(), client.call);
            self.send(SendKey(Whose::Transaction(key)), to, bytes, call);
        }
    }

    fn deliver(
        &mut self,
        now: Instant,
        key: Key,
        user: ClientUser,
        call: Option<Key>,
        response: &Message,
    ) {
        let status = response.status().unwrap_or_default();
        match (user, call) {
            (ClientUser::Invite, Some(call)) => self.invite_response(now, call, status, response),
            (ClientUser::Refresh, Some(call)) => {
                self.refresh_response(now, call, key, status, response)
            }
            (ClientUser::Through, _) => {
                let (request, message) = (RequestKey(key), response.clone());
                self.event(Event::Through(Through::Response { request, message }));
            }
            (ClientUser::OutOfDialog, _) if status >= 200 => {
                let (request, message) = (RequestKey(key), Some(response.clone()));
                self.event(Event::Response { request, status, message });
            }
            (ClientUser::Subscribe(subscription), _) if status >= 200 => {
                self.subscribe_response(subscription, status, Some(response));
            }
            (ClientUser::Notify(watcher), _) if status >= 200 => {
                self.notify_response(now, watcher, status, Some(response));
            }
            _ => {}
        }
    }

    fn no_answer(
        &mut self,
        now: Instant,
        key: Key,
        user: ClientUser,
        call: Option<Key>,
        cause: Failure,
    ) {
        let status = if cause == Failure::Timeout { 408 } else { 503 };
        match (user, call) {
            (ClientUser::Invite, Some(call)) => self.invite_failed(call, status, None, cause),
            (ClientUser::Refresh, Some(call)) => self.refresh_failed(now, call, cause),
            (ClientUser::Through, _) => {
                let request = RequestKey(key);
                self.event(Event::Through(Through::Failed { request, cause }));
            }
            (ClientUser::OutOfDialog, _) => {
                self.event(Event::Response { request: RequestKey(key), status, message: None });
            }
            (ClientUser::Subscribe(subscription), _) => {
                self.subscribe_response(subscription, status, None);
            }
            (ClientUser::Notify(watcher), _) => self.notify_response(now, watcher, status, None),
            _ => {}
        }
    }

    /// Forgets a client transaction, and its call if that was all that kept it.
    pub(super) fn drop_client(&mut self, key: Key) {
        let Some(Transaction::Client(client)) = self.transactions.remove(key) else {
            return;
        };
        self.counts.client_transactions -= 1;
        self.clients.remove(&(client.branch, client.is_cancel));
        for token in client.timers {
            self.stop_timer(token);
        }
        if client.user == ClientUser::Through {
            self.event(Event::Through(Through::Over { request: RequestKey(key) }));
        }
        if let Some(call) = client.call {
            if matches!(client.user, ClientUser::Invite | ClientUser::Refresh) {
                self.invite_transaction_gone(call, key);
            }
            if let Some(state) = self.calls.get_mut(call) {
                state.holds -= 1;
            }
            self.reap(call);
        }
    }

    // --- server ---

    pub(super) fn open_server(
        &mut self,
        now: Instant,
        request: Message,
        flow: Flow,
        key: u128,
        tag: String,
        user: ServerUser,
    ) -> Key {
        let is_invite = request.method() == Some(Method::Invite);
        let terms = Terms { timers: self.settings.timers, reliable: flow.protocol.is_reliable() };
        let mut actions = Actions::new();
        let machine = if is_invite {
            ServerMachine::Invite(InviteServer::Proceeding)
        } else {
            ServerMachine::Other(Server::start(&terms, &mut actions))
        };
        let server = ServerTransaction {
            machine,
            key,
            arrival: None,
            flow,
            request: Some(request),
            tag: tag.into_boxed_str(),
            response: Bytes::new(),
            user,
            call: None,
            timers: [None, None],
        };
        self.counts.kept_bytes += server.kept();
        self.counts.server_transactions += 1;
        let slot = self.transactions.insert(Transaction::Server(Box::new(server)));
        self.servers.insert(key, slot);
        self.act_server(now, slot, actions, true);
        slot
    }

    pub(super) fn mark_arrival(&mut self, key: Key, arrival: u128) {
        self.arrivals.insert(arrival, key);
        if let Some(server) = self.server_mut(key) {
            server.arrival = Some(arrival);
        }
    }

    pub(super) fn server(&self, key: Key) -> Option<&ServerTransaction> {
        match self.transactions.get(key)? {
            Transaction::Server(server) => Some(server),
            Transaction::Client(_) => None,
        }
    }

    pub(super) fn server_mut(&mut self, key: Key) -> Option<&mut ServerTransaction> {
        match self.transactions.get_mut(key)? {
            Transaction::Server(server) => Some(server),
            Transaction::Client(_) => None,
        }
    }

    /// Answers a server transaction out of its request and `reply`; `lines` are put before the reply's own.
    /// Returns the bytes, for those who repeat them.
    pub(super) fn reply(
        &mut self,
        now: Instant,
        key: Key,
        reply: &Reply,
        lines: &[(&str, &[u8])],
    ) -> Option<Bytes> {
        let server = self.server(key)?;
        let request = server.request.clone()?;
        let mut writer =
            wire::response(&request, &server.flow, reply, &server.tag, &self.settings.server);
        self.repeat_into(&mut writer, &request, &server.flow, reply);
        let dialogs = matches!(request.method(), Some(Method::Invite | Method::Subscribe));
        let opens = matches!(reply.status, 101..=299) && dialogs;
        if opens && request.to_tag().is_none() {
            writer.echo(&request, Name::RecordRoute);
        }
        for (name, value) in lines {
            writer.header(name, value);
        }
        let bytes = wire::finish_response(writer, reply);
        self.reply_with(now, key, reply.status, bytes.clone());
        Some(bytes)
    }

    /// Answers with bytes made before.
    pub(super) fn reply_with(&mut self, now: Instant, key: Key, status: u16, bytes: Bytes) {
        let Some(server) = self.server_mut(key) else {
            return;
        };
        let before = server.kept();
        // The writer's buffer is larger than what it holds; what stays for half a minute is not to be.
        server.response = Bytes::copy_from_slice(&bytes);
        if status >= 200 {
            server.request = None;
            server.tag = "".into();
        }
        let after = server.kept();
        self.counts.kept_bytes = self.counts.kept_bytes - before + after;
        self.move_server(now, key, Move::Response(status), true);
    }

    pub(super) fn drive_server(&mut self, now: Instant, key: Key, event: Move) {
        self.move_server(now, key, event, false);
    }

    fn move_server(&mut self, now: Instant, key: Key, event: Move, first: bool) {
        let timers = self.settings.timers;
        let Some(server) = self.server_mut(key) else {
            return;
        };
        let terms = Terms { timers, reliable: server.flow.protocol.is_reliable() };
        let mut actions = Actions::new();
        server.machine = match server.machine {
            ServerMachine::Invite(machine) => {
                ServerMachine::Invite(machine.on(event, &terms, &mut actions))
            }
            ServerMachine::Other(machine) => {
                ServerMachine::Other(machine.on(event, &terms, &mut actions))
            }
        };
        self.act_server(now, key, actions, first);
    }

    fn act_server(&mut self, now: Instant, key: Key, actions: Actions, first: bool) {
        for action in actions {
            let Some(server) = self.server(key) else {
                return;
            };
            match action {
                Action::Transmit => {
                    let (flow, bytes) = (server.flow, server.response.clone());
                    let call = server.call;
                    if !first {
                        self.counts.retransmissions_sent += 1;
                    }
                    if !bytes.is_empty() {
                        self.send(SendKey::NONE, Target::Flow(flow), bytes, call);
                    }
                }
                Action::Start(timer, after) => {
                    let token = self.timers.start(now + after, Due::Transaction(key, timer));
                    let old = self
                        .server_mut(key)
                        .and_then(|server| server.timers[place(timer)].replace(token));
                    self.stop_timer(old);
                }
                Action::Stop(timer) => {
                    let old =
                        self.server_mut(key).and_then(|server| server.timers[place(timer)].take());
                    self.stop_timer(old);
                }
                Action::Finish => self.drop_server(key),
                // Nobody waits for the ACK of a refusal; the rest belongs to the other side.
                Action::TimedOut | Action::Failed | Action::Ack | Action::Deliver => {}
            }
        }
    }

    fn drop_server(&mut self, key: Key) {
        let Some(Transaction::Server(server)) = self.transactions.remove(key) else {
            return;
        };
        self.counts.server_transactions -= 1;
        self.counts.kept_bytes -= server.kept();
        self.servers.remove(&server.key);
        if let Some(arrival) = server.arrival {
            self.arrivals.remove(&arrival);
        }
        for token in server.timers {
            self.stop_timer(token);
        }
        // A request handed up that nobody answered in time.
        if let ServerUser::Offer(call) = server.user
            && let Some(call) = self.calls.get_mut(call)
            && call.offer == Some(key)
        {
            call.offer = None;
        }
    }

    pub(super) fn transaction_timer(&mut self, now: Instant, key: Key, timer: Timer) {
        match self.transactions.get_mut(key) {
            Some(Transaction::Client(client)) => {
                client.timers[place(timer)] = None;
                if matches!(timer, Timer::B | Timer::F) && self.leaves_silent_hop(key) {
                    self.leave_hop(now, key, None);
                    return;
                }
                self.drive_client(now, key, Move::Expired(timer), None);
            }
            Some(Transaction::Server(server)) => {
                server.timers[place(timer)] = None;
                self.drive_server(now, key, Move::Expired(timer));
            }
            None => {}
        }
    }
}

impl ClientTransaction {
    /// An INVITE that was answered provisionally and not yet finally.
    pub fn is_proceeding(&self) -> bool {
        matches!(self.machine, ClientMachine::Invite(InviteClient::Proceeding))
    }

    /// Where its request goes.
    pub fn target(&self) -> Target {
        let (uri, attempt, octets) = (self.next_hop.clone(), self.attempt, self.octets);
        Target::NextHop { uri, attempt, octets }
    }

    /// The call it belongs to.
    pub fn call(&self) -> Option<Key> {
        self.call
    }

    /// Where the ACK of a refusal and CANCEL go: to the same place by the same protocol, although they are smaller
    /// (RFC 3261 §9.1, §17.1.1.3).
    pub fn way(&self) -> Way {
        (self.next_hop.clone(), self.attempt, self.request.len())
    }

    pub fn branch(&self) -> u64 {
        self.branch
    }

    /// Nobody has answered anything.
    pub fn is_unanswered(&self) -> bool {
        matches!(
            self.machine,
            ClientMachine::Invite(InviteClient::Calling { .. })
                | ClientMachine::Other(Client::Trying { .. })
        )
    }

    /// No final answer has come.
    pub fn is_open(&self) -> bool {
        self.is_unanswered()
            || matches!(
                self.machine,
                ClientMachine::Invite(InviteClient::Proceeding)
                    | ClientMachine::Other(Client::Proceeding)
            )
    }

    /// Who hears of its end.
    pub fn user(&self) -> ClientUser {
        self.user
    }
}

/// What a finished server transaction takes beside the octets of its answer: itself, its place in the table, two
/// entries that lead to it and its last timer, each with room to spare.
#[cfg(test)]
pub const FINISHED_SIZE: usize = size_of::<ServerTransaction>()
    + 2 * (size_of::<Transaction>() + 8 + 2 * size_of::<(u128, Key)>() + size_of::<(Token, Due)>());

/// A transaction runs one timer that repeats and one that ends.
fn place(timer: Timer) -> usize {
    usize::from(timer.repeats())
}
