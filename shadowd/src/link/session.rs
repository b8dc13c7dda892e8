//! One authenticated stream from its first frame to its end.
//!
//! Both sides say hello, then ping each other; whoever hears nothing for [`Pace::silence`] ends
//! the stream. Every session ends with a cause. Redialling is the business of `stream`.

use std::io;
use std::time::Duration;

use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout, timeout_at};

use super::frame::{Frame, FrameError, FrameStream, Hello};
use super::post::{NoLetter, Post, Receiving, Sending};
use crate::facts::Name;

/// Version of what is said on the stream.
pub(super) const VERSION: u16 = 1;

/// How a stream is watched.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// Between two pings.
    pub(super) ping: Duration,
    /// A stream on which nothing is heard for so long is ended.
    pub(super) silence: Duration,
}

/// The pace of every stream.
pub(super) const PACE: Pace = Pace {
    ping: Duration::from_secs(1),
    silence: Duration::from_secs(5),
};

/// Why there is no stream, or none any more.
#[derive(Debug, Error)]
pub(super) enum LinkError {
    /// No TCP connection.
    #[error("cannot connect")]
    Connect(#[source] io::Error),
    /// No TLS session: among others, the other end does not have the pinned key.
    #[error("the TLS handshake failed")]
    Handshake(#[source] io::Error),
    /// TLS gave no keys for the datagrams.
    #[error("cannot derive the datagram keys")]
    Export(#[source] rustls::Error),
    /// Not within the bound.
    #[error("no {0} in time")]
    Late(&'static str),
    /// The other end speaks something else.
    #[error("the other end does not speak shadowd/1")]
    Protocol,
    /// The certificate is of no peer that may dial this host.
    #[error("not a peer that dials this host")]
    Stranger,
    /// The stream ended or carried something wrong.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The peer's hello is not what the configuration says.
    #[error("the peer speaks version {0}, this host {VERSION}")]
    Version(u16),
    /// The peer has another name.
    #[error("the peer calls itself {0}")]
    Name(Name),
    /// A hello after the first frame, or another frame before it.
    #[error("a frame out of order")]
    Order,
    /// Nothing was heard for [`Pace::silence`].
    #[error("nothing heard for {0:?}")]
    Silent(Duration),
    /// Nothing could be written for [`Pace::silence`].
    #[error("nothing could be sent for {0:?}")]
    Stalled(Duration),
    /// The same peer made a newer stream.
    #[error("the peer connected anew")]
    Replaced,
}

impl LinkError {
    /// Whether an authentic peer said what it must not: another version's daemon, or a broken one.
    pub(super) const fn is_violation(&self) -> bool {
        use FrameError::{TooLong, Trailing, Unknown};
        matches!(
            self,
            Self::Order | Self::Frame(TooLong(_) | Unknown(_) | Trailing(_))
        )
    }

    /// The message with those of its sources.
    pub(super) fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut error = std::error::Error::source(self);
        while let Some(source) = error {
            text.push_str(": ");
            text.push_str(&source.to_string());
            error = source.source();
        }
        text
    }
}

/// Says hello and takes the peer's, which must be from `peer`; gives the run of its daemon.
pub(super) async fn greet<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut FrameStream<S>,
    own: &Hello,
    peer: &Name,
) -> Result<[u8; 16], LinkError> {
    stream.send(&Frame::Hello(own.clone())).await?;
    match stream.receive().await? {
        Frame::Hello(hello) if hello.version != VERSION => Err(LinkError::Version(hello.version)),
        Frame::Hello(hello) if hello.name != *peer => Err(LinkError::Name(hello.name)),
        Frame::Hello(hello) => Ok(hello.run),
        Frame::Ping(_) | Frame::Pong(_) | Frame::Part { .. } => Err(LinkError::Order),
    }
}

/// Keeps the stream with `peer` until it ends, and says why it did. Letters pass between pings.
pub(super) async fn keep<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut FrameStream<S>,
    pace: Pace,
    (peer, post): (&Name, &Post),
) -> LinkError {
    let mut ticks = interval(pace.ping);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut heard = Instant::now();
    let mut pings = 0;
    let mut receiving = Receiving::default();
    let mut sending = Sending::new(Vec::new());
    sending.next();
    loop {
        let step = tokio::select! {
            biased;
            _ = ticks.tick() => Step::Ping,
            received = timeout_at(heard + pace.silence, stream.receive()) => Step::Heard(received),
            part = next_part(&mut sending, peer, post) => Step::Part(part),
        };
        let answer = match step {
            Step::Ping => {
                pings += 1;
                Frame::Ping(pings)
            }
            Step::Part((bytes, left)) => Frame::Part { bytes, left },
            Step::Heard(Err(_)) => return LinkError::Silent(pace.silence),
            Step::Heard(Ok(Err(error))) => return error.into(),
            Step::Heard(Ok(Ok(frame))) => {
                heard = Instant::now();
                match frame {
                    Frame::Ping(number) => Frame::Pong(number),
                    Frame::Hello(_) => return LinkError::Order,
                    Frame::Pong(_) => continue,
                    Frame::Part { bytes, left } => {
                        match receiving.take(&bytes, left) {
                            Ok(Some(letter)) => post.deliver(peer, letter),
                            Ok(None) => {}
                            Err(NoLetter) => return LinkError::Order,
                        }
                        continue;
                    }
                }
            }
        };
        match timeout(pace.silence, stream.send(&answer)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return error.into(),
            Err(_) => return LinkError::Stalled(pace.silence),
        }
    }
}

/// What a stream that is kept waits for.
enum Step {
    Ping,
    Heard(Result<Result<Frame, FrameError>, tokio::time::error::Elapsed>),
    Part((Vec<u8>, u32)),
}

/// The next part of the letter that is being sent, or of the next one. Cancel-safe.
async fn next_part(sending: &mut Sending, peer: &Name, post: &Post) -> (Vec<u8>, u32) {
    loop {
        if let Some(part) = sending.next() {
            return part;
        }
        *sending = Sending::new(post.next(peer).await);
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncWriteExt as _, DuplexStream, duplex};

    use super::*;

    fn hello(name: &str) -> Hello {
        Hello {
            version: VERSION,
            name: name.parse().unwrap(),
            run: [0; 16],
        }
    }

    fn ends() -> (FrameStream<DuplexStream>, FrameStream<DuplexStream>) {
        let (near, far) = duplex(1024);
        (FrameStream::new(near), FrameStream::new(far))
    }

    #[tokio::test]
    async fn a_hello_must_come_first_and_match() {
        let other = Hello {
            version: VERSION + 1,
            ..hello("b")
        };
        let wrong = [
            Frame::Hello(other),
            Frame::Hello(hello("c")),
            Frame::Ping(1),
        ];
        for frame in wrong {
            let (mut near, mut far) = ends();
            far.send(&frame).await.unwrap();
            let greeted = greet(&mut near, &hello("a"), &"b".parse().unwrap()).await;
            assert!(greeted.is_err(), "{frame:?}");
        }
        let (mut near, mut far) = ends();
        let (a, b) = ("a".parse().unwrap(), "b".parse().unwrap());
        let (ours, theirs) = (hello("a"), hello("b"));
        let both = tokio::join!(greet(&mut near, &ours, &b), greet(&mut far, &theirs, &a));
        assert!(both.0.is_ok() && both.1.is_ok());
    }

    #[tokio::test]
    async fn pings_are_sent_and_answered_and_silence_ends_the_stream() {
        let (mut near, mut far) = ends();
        let b: Name = "b".parse().unwrap();
        let (post, _letters) = Post::new([b.clone()]);
        let pace = Pace {
            ping: Duration::from_millis(5),
            silence: Duration::from_secs(20),
        };
        let other = async {
            for number in 1..=3 {
                assert_eq!(far.receive().await.unwrap(), Frame::Ping(number));
            }
            far.send(&Frame::Ping(99)).await.unwrap();
            while far.receive().await.unwrap() != Frame::Pong(99) {}
        };
        tokio::select! {
            cause = keep(&mut near, pace, (&b, &post)) => panic!("{cause:?}"),
            () = other => {}
        }
        let pace = Pace {
            ping: Duration::from_secs(20),
            silence: Duration::from_millis(20),
        };
        let cause = keep(&mut near, pace, (&b, &post)).await;
        assert!(matches!(cause, LinkError::Silent(_)));
    }

    #[tokio::test]
    async fn letters_pass_both_ways_and_pings_between_them() {
        let (mut near, mut far) = ends();
        let (a, b): (Name, Name) = ("a".parse().unwrap(), "b".parse().unwrap());
        let (at_a, mut to_a) = Post::new([b.clone()]);
        let (at_b, mut to_b) = Post::new([a.clone()]);
        let long = vec![7; 3 << 20];
        assert!(at_a.send(&b, long.clone()) && at_a.send(&b, vec![]) && at_b.send(&a, vec![1]));
        let read = async {
            let (first, second) = (to_b.recv().await, to_b.recv().await);
            (first, second, to_a.recv().await)
        };
        let pace = Pace {
            ping: Duration::from_millis(1),
            silence: Duration::from_secs(20),
        };
        tokio::select! {
            cause = keep(&mut near, pace, (&b, &at_a)) => panic!("{cause:?}"),
            cause = keep(&mut far, pace, (&a, &at_b)) => panic!("{cause:?}"),
            (first, second, answer) = read => {
                assert_eq!(first.map(|letter| letter.bytes), Some(long));
                assert_eq!(second.map(|letter| (letter.from, letter.bytes)), Some((a.clone(), vec![])));
                assert_eq!(answer.map(|letter| letter.bytes), Some(vec![1]));
            }
        }
    }

    #[tokio::test]
    async fn an_unknown_frame_ends_the_stream() {
        let (near, mut far) = duplex(64);
        far.write_all(&[0, 0, 0, 1, 99]).await.unwrap();
        let mut near = FrameStream::new(near);
        let b: Name = "b".parse().unwrap();
        let (post, _letters) = Post::new([b.clone()]);
        let cause = keep(&mut near, PACE, (&b, &post)).await;
        assert!(
            matches!(cause, LinkError::Frame(FrameError::Unknown(_))),
            "{cause:?}"
        );
    }
}
