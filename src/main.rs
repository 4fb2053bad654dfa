//! Arguments in, one command run.

fn main() {
    println!("pagecast {}", env!("CARGO_PKG_VERSION"));
}
