//! The limit an MSRP switch is measured against: copies what one connection brings to others, and reads none of it.

use std::net::SocketAddr;

use clap::Parser;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

#[derive(Parser)]
struct Arguments {
    #[arg(long)]
    listen: SocketAddr,
    /// Where every connection is copied to.
    #[arg(long)]
    to: SocketAddr,
    /// Octets of its buffer.
    #[arg(long, default_value_t = 64 << 10)]
    buffer: usize,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> std::io::Result<()> {
    let arguments = Arguments::parse();
    let listener = TcpListener::bind(arguments.listen).await?;
    println!("ready");
    loop {
        let (stream, _) = listener.accept().await?;
        let Arguments { to, buffer, .. } = arguments;
        drop(tokio::spawn(async move {
            if let Err(error) = copy(stream, to, buffer).await {
                eprintln!("copy: {error}");
            }
        }));
    }
}

/// The first octet says to how many.
async fn copy(mut from: TcpStream, to: SocketAddr, buffer: usize) -> std::io::Result<()> {
    let mut targets = Vec::new();
    for _ in 0..from.read_u8().await? {
        let target = TcpStream::connect(to).await?;
        target.set_nodelay(true)?;
        targets.push(target);
    }
    let mut buffer = vec![0; buffer];
    loop {
        let octets = from.read(&mut buffer).await?;
        if octets == 0 {
            return Ok(());
        }
        for target in &mut targets {
            target.write_all(&buffer[..octets]).await?;
        }
    }
}
