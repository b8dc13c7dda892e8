//! `hooks` and `hooks test`.

use super::args::{HooksArguments, HooksCommand};
use super::client::Client;
use super::{Failure, Screen, show, view};
use crate::facts::{LastNotice, Name};
use crate::serve::protocol;

pub(super) async fn hooks(
    client: &Client,
    screen: &mut Screen<'_>,
    wanted: HooksArguments,
) -> Result<(), Failure> {
    match wanted.command {
        None => view(client, screen, wanted.watch, protocol::HOOKS, show::hooks).await,
        Some(HooksCommand::Test { name }) => test(client, screen, name).await,
    }
}

async fn test(client: &Client, screen: &mut Screen<'_>, name: Name) -> Result<(), Failure> {
    let path = protocol::hook_test_path(&name);
    let last: LastNotice = client.post(&path, &()).await?;
    let text = show::tested(&name, &last, screen.paint);
    screen.show(&last, text)?;
    if last.ok {
        Ok(())
    } else {
        Err(Failure::Test { name })
    }
}
