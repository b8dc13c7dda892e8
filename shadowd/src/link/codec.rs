//! Bytes of a [`Datagram`] before sealing and after opening.
//!
//! postcard (<https://postcard.jamesmunns.com/wire-format>), bounded on both sides. Decoding
//! accepts any bytes and answers with an error; it never panics and allocates no more than a small
//! multiple of its input.

use thiserror::Error;

use crate::facts::Datagram;

/// Why a datagram has no bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(super) enum EncodeError {
    /// More than [`Datagram::MAX_MESSAGES`].
    #[error("a datagram carries at most {} messages", Datagram::MAX_MESSAGES)]
    TooManyMessages,
    /// The buffer is too small for it.
    #[error(
        "the datagram is longer than {} bytes when sealed",
        Datagram::MAX_BYTES
    )]
    TooLong,
}

/// Why bytes are not a datagram.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(super) enum DecodeError {
    /// Not what [`encode`] writes.
    #[error("not a datagram")]
    Malformed(#[source] postcard::Error),
    /// Something follows the datagram.
    #[error("{0} bytes follow the datagram")]
    Trailing(usize),
    /// More than [`Datagram::MAX_MESSAGES`].
    #[error("a datagram carries at most {} messages", Datagram::MAX_MESSAGES)]
    TooManyMessages,
}

/// Writes `datagram` to the start of `buffer` and returns its length.
pub(super) fn encode(datagram: &Datagram, buffer: &mut [u8]) -> Result<usize, EncodeError> {
    if datagram.messages.len() > Datagram::MAX_MESSAGES {
        return Err(EncodeError::TooManyMessages);
    }
    // Every type in a datagram is always serializable, so only the room can run out.
    postcard::to_slice(datagram, buffer)
        .map(|used| used.len())
        .map_err(|_| EncodeError::TooLong)
}

/// Reads a datagram that fills `bytes` exactly.
pub(super) fn decode(bytes: &[u8]) -> Result<Datagram, DecodeError> {
    let (datagram, rest) =
        postcard::take_from_bytes::<Datagram>(bytes).map_err(DecodeError::Malformed)?;
    if !rest.is_empty() {
        return Err(DecodeError::Trailing(rest.len()));
    }
    if datagram.messages.len() > Datagram::MAX_MESSAGES {
        return Err(DecodeError::TooManyMessages);
    }
    Ok(datagram)
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::facts::{
        Body, BootTime, Cause, Drain, Enlistment, Epoch, GroupMessage, HostId, LoanWord,
        PathNumber, PolicyWord, Role,
    };

    fn body() -> impl Strategy<Value = Body> {
        let role = prop_oneof![
            Just(Role::Joining),
            Just(Role::Shadow),
            Just(Role::Active),
            Just(Role::Stopped)
        ];
        let cause = prop_oneof![
            Just(Cause::ColdStart),
            Just(Cause::UnitDied),
            Just(Cause::DaemonStopped),
            Just(Cause::Joined)
        ];
        let lease = any::<u64>().prop_map(std::time::Duration::from_nanos);
        let drain = (any::<[u8; 6]>(), lease.clone()).prop_map(|(at, lasts)| Drain { at, lasts });
        let drain = proptest::option::of(drain);
        let host = any::<[u8; 32]>().prop_map(HostId::from_bytes);
        prop_oneof![
            (
                role,
                any::<u8>(),
                any::<bool>(),
                lease.clone(),
                any::<u64>(),
                any::<[u32; 3]>(),
            )
                .prop_map(|(role, priority, eligible, lease, electorate, words)| {
                    Body::Beat {
                        role,
                        priority,
                        eligible,
                        lease,
                        electorate,
                        policy: PolicyWord {
                            definition: words[0],
                            reason: words[1].is_multiple_of(2).then_some(Cause::Flapping),
                            freeze_order: u64::from(words[1]),
                            freeze_left_ms: words[2],
                            loan: words[2].is_multiple_of(2).then_some(LoanWord {
                                epoch: electorate,
                                back: eligible,
                            }),
                            enlisted: Enlistment {
                                epoch: u64::from(words[0]),
                                change: words[2],
                                spares: (words[1] & 255) as u8,
                            },
                        },
                    }
                }),
            cause.prop_map(|cause| Body::Resign { cause }),
            host.clone().prop_map(|to| Body::Offer { to }),
            proptest::option::of(any::<[u8; 6]>())
                .prop_map(|passes_back| Body::Ready { passes_back }),
            (host, any::<u64>(), drain).prop_map(|(to, deadline, drain)| Body::Transfer {
                to,
                deadline: BootTime::from_nanos(deadline),
                drain,
            }),
            (lease.clone(), any::<u64>())
                .prop_map(|(lease, electorate)| Body::Ask { lease, electorate }),
            (any::<u64>(), lease.clone()).prop_map(|(sent, lease)| Body::Promise {
                sent: BootTime::from_nanos(sent),
                lease,
            }),
            lease.prop_map(|wait| Body::Refuse { wait }),
            Just(Body::Withdraw),
            (any::<u32>(), any::<u64>()).prop_map(|(silent_ms, electorate)| Body::Pause {
                silent: std::time::Duration::from_millis(silent_ms.into()),
                electorate,
            }),
        ]
    }

    fn message() -> impl Strategy<Value = GroupMessage> {
        ("[!-.0-~]{1,40}", any::<u64>(), any::<[u8; 32]>(), body()).prop_map(
            |(group, counter, owner, body)| GroupMessage {
                group: group.parse().unwrap(),
                epoch: Epoch {
                    counter,
                    owner: HostId::from_bytes(owner),
                },
                body,
            },
        )
    }

    /// Any datagram with up to `messages` messages.
    pub(in crate::link) fn datagram(messages: usize) -> impl Strategy<Value = Datagram> {
        (
            any::<u64>(),
            any::<Option<u64>>(),
            any::<[Option<u64>; PathNumber::COUNT]>(),
            vec(message(), 0..=messages),
        )
            .prop_map(|(sent, heard, echoes, messages)| Datagram {
                sent: BootTime::from_nanos(sent),
                heard: heard.map(BootTime::from_nanos),
                echoes: echoes.map(|echo| echo.map(BootTime::from_nanos)),
                messages,
            })
    }

    proptest! {
        #[test]
        fn a_datagram_reads_back_or_is_too_long(
            datagram in datagram(Datagram::MAX_MESSAGES), room in 0..Datagram::MAX_BYTES
        ) {
            let mut buffer = vec![0; room];
            let whole = postcard::to_stdvec(&datagram).unwrap();
            match encode(&datagram, &mut buffer) {
                Ok(length) => prop_assert_eq!(decode(&buffer[..length]), Ok(datagram)),
                Err(error) => {
                    prop_assert_eq!(error, EncodeError::TooLong);
                    prop_assert!(whole.len() > room);
                }
            }
        }

        #[test]
        fn any_bytes_decode_or_fail(bytes in vec(any::<u8>(), 0..Datagram::MAX_BYTES)) {
            let _ = decode(&bytes);
        }

        #[test]
        fn damaged_bytes_decode_or_fail(
            datagram in datagram(4), at in any::<prop::sample::Index>(), with in any::<u8>()
        ) {
            let mut bytes = postcard::to_stdvec(&datagram).unwrap();
            let at = at.index(bytes.len());
            bytes[at] = with;
            let _ = decode(&bytes);
            bytes.truncate(at);
            let _ = decode(&bytes);
        }
    }

    /// The failover loop puts so many into one datagram; sealing adds 33 bytes.
    #[test]
    fn seven_of_the_longest_heartbeats_fit() {
        let most = u64::MAX;
        let message = GroupMessage {
            group: "g".repeat(32).parse().unwrap(),
            epoch: Epoch {
                counter: most,
                owner: HostId::from_bytes([255; 32]),
            },
            body: Body::Beat {
                role: Role::Stopped,
                priority: 255,
                eligible: true,
                lease: std::time::Duration::from_secs(600 * 16),
                electorate: most,
                policy: PolicyWord {
                    definition: u32::MAX,
                    reason: Some(Cause::DefinitionDiffers),
                    freeze_order: most,
                    freeze_left_ms: u32::MAX,
                    loan: Some(LoanWord {
                        epoch: most,
                        back: true,
                    }),
                    enlisted: Enlistment {
                        epoch: most,
                        change: u32::MAX,
                        spares: 255,
                    },
                },
            },
        };
        let datagram = Datagram {
            sent: BootTime::from_nanos(most),
            heard: Some(BootTime::from_nanos(most)),
            echoes: [Some(BootTime::from_nanos(most)); PathNumber::COUNT],
            messages: vec![message; 7],
        };
        let mut buffer = [0; Datagram::MAX_BYTES - 33];
        encode(&datagram, &mut buffer).expect("they fit");
    }

    #[test]
    fn bounds_hold_on_both_sides() {
        let message = GroupMessage {
            group: "g".parse().unwrap(),
            epoch: Epoch::NONE,
            body: Body::Ready {
                passes_back: Some([2; 6]),
            },
        };
        let mut datagram = Datagram {
            sent: BootTime::default(),
            heard: None,
            echoes: Default::default(),
            messages: vec![],
        };
        datagram.messages = vec![message; Datagram::MAX_MESSAGES + 1];
        let mut buffer = [0; Datagram::MAX_BYTES];
        assert_eq!(
            encode(&datagram, &mut buffer),
            Err(EncodeError::TooManyMessages)
        );
        let mut bytes = postcard::to_stdvec(&datagram).unwrap();
        assert_eq!(decode(&bytes), Err(DecodeError::TooManyMessages));
        datagram.messages.pop();
        bytes = postcard::to_stdvec(&datagram).unwrap();
        assert_eq!(decode(&bytes), Ok(datagram));
        bytes.push(0);
        assert_eq!(decode(&bytes), Err(DecodeError::Trailing(1)));
    }
}
