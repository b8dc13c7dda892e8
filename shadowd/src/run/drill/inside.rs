//! What the daemon's own program does inside the place of a drill, and where that program is.

use crate::act::drill as place;

/// This program, also when a newer one took its place meanwhile.
pub(in crate::run) fn program() -> Result<String, String> {
    let path = std::env::current_exe().map_err(|error| error.to_string())?;
    let path = path.into_os_string().into_string();
    let path = path.map_err(|_| "the path of the daemon is not UTF-8".to_owned())?;
    Ok(path.strip_suffix(" (deleted)").unwrap_or(&path).to_owned())
}

/// Makes the place of a drill and keeps it until it is ended; systemd starts this for a drill.
///
/// # Errors
/// Without a private network, or when a step fails.
pub fn hold(place: &str) -> anyhow::Result<()> {
    let place = serde_json::from_str(place)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(place::hold(&place))?;
    crate::run::stop::notify("READY", "1");
    loop {
        std::thread::park();
    }
}

/// Makes one check of a drill; systemd starts this in the place of one.
///
/// # Errors
/// What the check found.
pub fn check_one(probe: &str) -> anyhow::Result<()> {
    println!("{}", place::probe(&serde_json::from_str(probe)?)?);
    Ok(())
}
