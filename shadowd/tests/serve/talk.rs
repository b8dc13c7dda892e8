//! Plain words over the socket, without the client.

use std::io::Read;
use std::os::unix::net::UnixStream;
use std::path::Path;

use super::daemon::PATIENCE;

pub fn connect(socket: &Path) -> UnixStream {
    let stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Reads a response that ends with its connection.
pub fn response(stream: &mut UnixStream) -> (u16, String) {
    let mut bytes = Vec::new();
    let mut chunk = [0; 4096];
    // A reset after the answer is how a closed socket with unread input looks.
    while let Ok(count @ 1..) = stream.read(&mut chunk) {
        bytes.extend_from_slice(&chunk[..count]);
    }
    let text = String::from_utf8(bytes).unwrap();
    let status = text
        .get(9..12)
        .and_then(|code| code.parse().ok())
        .unwrap_or(0);
    let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    (status, body.to_owned())
}
