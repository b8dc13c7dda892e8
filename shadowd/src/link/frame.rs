//! Frames of the stream: a length (4 bytes, big endian), then one [`Frame`] in postcard.
//!
//! Reading is cancel-safe and bounded; any bytes are a frame or an error.

use std::io;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use crate::facts::Name;

/// A longer frame is refused.
const MAX_BYTES: usize = 64 * 1024;
const LENGTH_BYTES: usize = 4;

/// What one host says to the other on the stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Frame {
    /// The first frame of each side, and only the first.
    Hello(Hello),
    /// Asks for a [`Frame::Pong`] with the same number.
    Ping(u64),
    /// Answers a [`Frame::Ping`].
    Pong(u64),
    /// A part of a letter.
    Part {
        /// The part.
        bytes: Vec<u8>,
        /// Bytes of the letter that follow.
        left: u32,
    },
}

/// Who speaks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Hello {
    /// Version of what is said on the stream.
    pub(super) version: u16,
    /// The speaker's own name.
    pub(super) name: Name,
    /// The run of the speaker's daemon, at random: another one means that every key of an earlier
    /// run is lost, and what was sealed with one is old.
    pub(super) run: [u8; 16],
}

/// Why there is no further frame.
#[derive(Debug, Error)]
pub(super) enum FrameError {
    /// The connection broke.
    #[error("the connection broke")]
    Broken(#[source] io::Error),
    /// The peer closed it.
    #[error("the peer closed the connection")]
    Closed,
    /// The peer announced a frame beyond the bound.
    #[error("a frame of {0} bytes, at most {MAX_BYTES} are allowed")]
    TooLong(usize),
    /// The frame is not one this version knows.
    #[error("a frame that this version does not know")]
    Unknown(#[source] postcard::Error),
    /// Something follows the frame's content.
    #[error("a frame with {0} bytes too many")]
    Trailing(usize),
}

/// A byte stream that carries frames.
#[derive(Debug)]
pub(super) struct FrameStream<S> {
    stream: S,
    /// Received and not yet used.
    received: Vec<u8>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> FrameStream<S> {
    /// Frames over `stream`.
    pub(super) const fn new(stream: S) -> Self {
        Self {
            stream,
            received: Vec::new(),
        }
    }

    /// Sends one frame. Not cancel-safe: after a cancelled send the stream must be given up.
    pub(super) async fn send(&mut self, frame: &Frame) -> Result<(), FrameError> {
        let bytes = postcard::to_extend(frame, vec![0; LENGTH_BYTES])
            .map_err(FrameError::Unknown)
            .and_then(with_length)?;
        self.stream
            .write_all(&bytes)
            .await
            .map_err(FrameError::Broken)?;
        self.stream.flush().await.map_err(FrameError::Broken)
    }

    /// Receives one frame. Cancel-safe.
    pub(super) async fn receive(&mut self) -> Result<Frame, FrameError> {
        loop {
            if let Some((frame, used)) = parse(&self.received)? {
                self.received.drain(..used);
                return Ok(frame);
            }
            // At most one frame and one read beyond it is ever held.
            self.received.reserve(1024);
            match self.stream.read_buf(&mut self.received).await {
                Ok(0) => return Err(FrameError::Closed),
                Ok(_) => {}
                // A peer whose daemon was killed closes without TLS's farewell.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    return Err(FrameError::Closed);
                }
                Err(error) => return Err(FrameError::Broken(error)),
            }
        }
    }
}

fn with_length(mut bytes: Vec<u8>) -> Result<Vec<u8>, FrameError> {
    let length = bytes.len() - LENGTH_BYTES;
    match u32::try_from(length) {
        Ok(prefix) if length <= MAX_BYTES => {
            bytes[..LENGTH_BYTES].copy_from_slice(&prefix.to_be_bytes());
            Ok(bytes)
        }
        _ => Err(FrameError::TooLong(length)),
    }
}

/// The frame at the start of `bytes` and its length there; `None` when more bytes are needed.
pub(super) fn parse(bytes: &[u8]) -> Result<Option<(Frame, usize)>, FrameError> {
    let Some((prefix, rest)) = bytes.split_first_chunk::<LENGTH_BYTES>() else {
        return Ok(None);
    };
    let length = u32::from_be_bytes(*prefix) as usize;
    if length > MAX_BYTES {
        return Err(FrameError::TooLong(length));
    }
    let Some(content) = rest.get(..length) else {
        return Ok(None);
    };
    let (frame, rest) = postcard::take_from_bytes(content).map_err(FrameError::Unknown)?;
    if !rest.is_empty() {
        return Err(FrameError::Trailing(rest.len()));
    }
    Ok(Some((frame, LENGTH_BYTES + length)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[tokio::test]
    async fn frames_arrive_whole_however_they_are_cut() {
        let (near, mut far) = tokio::io::duplex(3);
        let mut near = FrameStream::new(near);
        let hello = Hello {
            version: 1,
            name: "a".parse().unwrap(),
            run: [7; 16],
        };
        let frames = [Frame::Hello(hello), Frame::Ping(u64::MAX), Frame::Pong(0)];
        let sent = frames.clone();
        tokio::spawn(async move {
            for frame in sent {
                let bytes = postcard::to_extend(&frame, vec![0; LENGTH_BYTES]).unwrap();
                far.write_all(&with_length(bytes).unwrap()).await.unwrap();
            }
        });
        for frame in frames {
            assert_eq!(near.receive().await.unwrap(), frame);
        }
        assert!(matches!(near.receive().await, Err(FrameError::Closed)));
    }

    #[test]
    fn what_is_no_frame_is_refused() {
        assert!(matches!(
            parse(&[0, 1, 0, 1]),
            Err(FrameError::TooLong(65537))
        ));
        assert!(matches!(
            parse(&[0, 0, 0, 1, 9]),
            Err(FrameError::Unknown(_))
        ));
        assert!(matches!(parse(&[0, 0, 0, 0]), Err(FrameError::Unknown(_))));
        assert!(matches!(
            parse(&[0, 0, 0, 3, 1, 0, 0]),
            Err(FrameError::Trailing(1))
        ));
        assert!(matches!(parse(&[0, 0, 0, 2, 1]), Ok(None)));
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_frame_or_an_error(
            bytes in proptest::collection::vec(any::<u8>(), 0..300)
        ) {
            let _ = parse(&bytes);
            let mut framed = (bytes.len() as u32).to_be_bytes().to_vec();
            framed.extend_from_slice(&bytes);
            let _ = parse(&framed);
        }
    }
}
