//! Opens the sockets of all threads, before the threads exist.

use std::io;
use std::net::SocketAddr;

use socket2::{Domain, Socket, Type};

use super::Settings;

/// The sockets of one thread, open and not yet served.
#[derive(Debug)]
pub(super) struct Sockets {
    pub udp: Vec<std::net::UdpSocket>,
    pub tcp: Vec<std::net::TcpListener>,
    pub tls: Vec<std::net::TcpListener>,
}

/// Opens one set of sockets per thread. Port 0 takes a free port, the same for UDP and TCP on one address.
pub(super) fn open(settings: &Settings, threads: usize) -> io::Result<Vec<Sockets>> {
    // A port that is free for UDP may be taken for TCP; then another one is tried.
    let mut tries = 0;
    loop {
        match open_all(settings, threads) {
            Err(error)
                if error.kind() == io::ErrorKind::AddrInUse
                    && tries < 32
                    && settings.udp.iter().any(|at| at.port() == 0) =>
            {
                tries += 1
            }
            opened => return opened,
        }
    }
}

fn open_all(settings: &Settings, threads: usize) -> io::Result<Vec<Sockets>> {
    let (mut udp, mut tcp) = (settings.udp.clone(), settings.tcp.clone());
    let mut tls = settings.tls.clone();
    if threads > 1 {
        alone(&udp, Type::DGRAM)?;
        alone(&tcp, Type::STREAM)?;
        alone(&tls, Type::STREAM)?;
    }
    let mut all = Vec::with_capacity(threads);
    for thread in 0..threads {
        let mut sockets = Sockets { udp: Vec::new(), tcp: Vec::new(), tls: Vec::new() };
        for address in &mut udp {
            let socket = socket(*address, Type::DGRAM, threads)?;
            // More than the system allows is cut by the system: no reason to fail.
            let _ = socket.set_recv_buffer_size(settings.udp_buffer);
            let _ = socket.set_send_buffer_size(settings.udp_buffer);
            socket.bind(&(*address).into())?;
            let socket = std::net::UdpSocket::from(socket);
            *address = socket.local_addr()?;
            sockets.udp.push(socket);
        }
        for address in &mut tcp {
            if address.port() == 0
                && let Some(same) = udp.iter().find(|other| other.ip() == address.ip())
            {
                address.set_port(same.port());
            }
            sockets.tcp.push(listener(address, threads)?);
        }
        for address in &mut tls {
            sockets.tls.push(listener(address, threads)?);
        }
        tracing::debug!(thread, ?udp, ?tcp, ?tls, "SIP sockets open");
        all.push(sockets);
    }
    Ok(all)
}

/// Listens, and tells the port that was taken.
fn listener(address: &mut SocketAddr, threads: usize) -> io::Result<std::net::TcpListener> {
    let socket = socket(*address, Type::STREAM, threads)?;
    socket.set_reuse_address(true)?;
    socket.bind(&(*address).into())?;
    socket.listen(1024)?;
    let listener = std::net::TcpListener::from(socket);
    *address = listener.local_addr()?;
    Ok(listener)
}

/// Fails where another process listens already. Sockets that share a port with those of our other threads would share
/// it with that process, too, and each would get a part of the traffic.
fn alone(addresses: &[SocketAddr], kind: Type) -> io::Result<()> {
    for address in addresses.iter().filter(|address| address.port() != 0) {
        let probe = socket(*address, kind, 1)?;
        if kind == Type::STREAM {
            // Connections of an earlier run that linger are no listener.
            probe.set_reuse_address(true)?;
        }
        probe.bind(&(*address).into())?;
    }
    Ok(())
}

fn socket(address: SocketAddr, kind: Type, threads: usize) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), kind, None)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // One thread alone does without, so that a second process on the same port is an error.
    if threads > 1 {
        socket.set_reuse_port(true)?;
    }
    socket.set_nonblocking(true)?;
    Ok(socket)
}
