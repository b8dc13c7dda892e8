//! What a provider prints, for the fuzzer: it is a program of the operator.

use super::provider;

/// An answer: bounded, and fit for one line of a log.
pub(crate) fn answer(bytes: &[u8]) {
    match provider::decode(bytes) {
        Ok(answer) => {
            assert!(bytes.len() <= provider::ANSWER_MAX);
            assert!(!answer.detail.chars().any(char::is_control));
            assert!(answer.detail.len() <= provider::ANSWER_MAX);
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// One of each.
pub(crate) fn answers() -> Vec<Vec<u8>> {
    let texts = [
        r#"{"state":"ready"}"#,
        r#"{"state":"creating","detail":"copies the image, \u0007 40 %"}"#,
        r#"{"state":"failed","detail":"no room \ud83d\ude00"}"#,
        " \n",
    ];
    texts.map(Into::into).into()
}
