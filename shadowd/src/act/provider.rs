//! Asks the operator's provider to create a host: a request as JSON goes in, an answer comes out.
//!
//! The command runs as a hook does, in a transient unit of its own with a deadline, so it hangs
//! nothing and leaves nothing behind ([`super::hooks`]). What it prints comes back through a pipe
//! that systemd hands to it; what it says on standard error is in the journal under its unit. What
//! it answers is bounded, read strictly, and a word among others: this module decides nothing.

use std::os::fd::OwnedFd;
use std::time::Duration;

use thiserror::Error;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;
use tokio::time::timeout;
use zbus::{Fd, Variant};

use super::hooks::{End, Hooks, Run};
use crate::config::settings::CommandSettings;
use crate::facts::{ProviderAnswer, ProviderRequest, ProviderState};

/// A longer answer is none.
pub const ANSWER_MAX: usize = 4_096;
/// More characters of its detail are cut.
const DETAIL_MAX: usize = 500;
/// What the command wrote is there so long after its end, or it is not there at all.
const READ_WITHIN: Duration = Duration::from_secs(1);

/// Why an answer is none.
#[derive(Debug, Error)]
pub enum AnswerError {
    /// Longer than [`ANSWER_MAX`].
    #[error("its answer has more than {ANSWER_MAX} bytes")]
    TooLong,
    /// Nothing at all.
    #[error("it answered nothing")]
    Empty,
    /// Something else than one object of JSON.
    #[error("its answer is no object of JSON")]
    NoObject,
    /// Not one object of JSON with `state` and perhaps `detail`.
    #[error("its answer is not understood: {0}")]
    Malformed(#[source] serde_json::Error),
}

/// Reads what a provider printed.
///
/// # Errors
/// [`AnswerError`]: it is no answer.
pub fn decode(bytes: &[u8]) -> Result<ProviderAnswer, AnswerError> {
    if bytes.len() > ANSWER_MAX {
        return Err(AnswerError::TooLong);
    }
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Err(AnswerError::Empty);
    }
    // A list of the same values would be read as well.
    if bytes.trim_ascii_start().first() != Some(&b'{') {
        return Err(AnswerError::NoObject);
    }
    let answer: ProviderAnswer = serde_json::from_slice(bytes).map_err(AnswerError::Malformed)?;
    let letters = answer.detail.chars().take(DETAIL_MAX);
    let plain = |letter: char| if letter.is_control() { ' ' } else { letter };
    Ok(ProviderAnswer {
        detail: letters.map(plain).collect(),
        ..answer
    })
}

/// Asks, and waits for the answer: at most some seconds more than the command's deadline. Whatever
/// goes wrong is an attempt that failed.
pub async fn ask(
    hooks: &Hooks,
    command: &CommandSettings,
    request: &ProviderRequest,
) -> ProviderAnswer {
    let failed = |detail: String| ProviderAnswer {
        state: ProviderState::Failed,
        detail,
    };
    match run(hooks, command, request).await {
        Err(why) => failed(why),
        Ok((end, said)) => match (end, decode(&said)) {
            (End::Exited(0), Ok(answer)) => answer,
            (End::Exited(0), Err(error)) => failed(error.to_string()),
            (end, Ok(answer)) if !answer.detail.is_empty() => {
                failed(format!("{end}: {}", answer.detail))
            }
            (end, _) => failed(end.to_string()),
        },
    }
}

async fn run(
    hooks: &Hooks,
    command: &CommandSettings,
    request: &ProviderRequest,
) -> Result<(End, Vec<u8>), String> {
    let words = |error: &dyn std::error::Error| error.to_string();
    let mut input = serde_json::to_string(request).map_err(|error| words(&error))?;
    input.push('\n');
    let (ours, theirs) = std::io::pipe().map_err(|error| words(&error))?;
    let mut ours = Receiver::from_owned_fd(OwnedFd::from(ours)).map_err(|error| words(&error))?;
    let theirs = Fd::from(OwnedFd::from(theirs));
    let run = Run {
        unit: unit(request),
        description: format!(
            "shadowd: provider of {} for {}",
            request.host, request.group
        ),
        command,
        environment: Vec::new(),
        input: Some(input),
        more: vec![
            ("StandardOutputFileDescriptor", Variant::from(theirs)),
            ("StandardError", Variant::new("journal")),
        ],
    };
    // One that prints without end is not read any further, and finds its pipe broken.
    let read = async move {
        let mut said = Vec::new();
        let mut bounded = (&mut ours).take(ANSWER_MAX as u64 + 1);
        let _ = bounded.read_to_end(&mut said).await;
        said
    };
    let read = tokio::spawn(read);
    let ended = hooks.run(&run).await;
    // Nobody else writes any more.
    drop(run);
    let said = timeout(READ_WITHIN, read).await;
    let end = ended.map_err(|error| chain(&error))?;
    let said = said.ok().and_then(Result::ok).unwrap_or_default();
    Ok((end, said))
}

/// One for each group: systemd refuses a second one beside it.
fn unit(request: &ProviderRequest) -> String {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "-_.".contains(letter);
    let letters = request.group.as_str().chars();
    let label: String = letters
        .map(|letter| if plain(letter) { letter } else { '_' })
        .collect();
    format!("shadowd-provider-{label}.service")
}

/// An error and what is behind it, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |error| error.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_one_small_object_and_nothing_else() {
        let ready = decode(b" {\"state\":\"ready\"}\n").expect("an answer");
        assert_eq!(
            (ready.state, ready.detail.as_str()),
            (ProviderState::Ready, "")
        );
        let failed = decode(b"{\"state\":\"failed\",\"detail\":\"no\\nroom\"}").expect("an answer");
        assert_eq!(failed.detail, "no room", "one line for the log");
        let long = format!("{{\"state\":\"ready\",\"detail\":\"{}\"}}", "x".repeat(600));
        assert_eq!(
            decode(long.as_bytes()).expect("it fits").detail.len(),
            DETAIL_MAX
        );
        for bad in [
            "",
            " \n",
            "ready",
            "{}",
            "{\"state\":\"done\"}",
            "{\"state\":\"ready\"} {\"state\":\"ready\"}",
            "{\"state\":\"ready\",\"state\":\"failed\"}",
            "{\"state\":\"ready\",\"members\":[\"x\"]}",
            "[\"ready\"]",
        ] {
            assert!(decode(bad.as_bytes()).is_err(), "{bad}");
        }
        let endless = vec![b' '; ANSWER_MAX + 1];
        assert!(matches!(decode(&endless), Err(AnswerError::TooLong)));
    }
}
