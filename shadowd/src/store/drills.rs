//! The last drill of each group, in a file of its own: a restart forgets none.

use std::fs;
use std::io;
use std::path::Path;

use crate::facts::DrillReport;

const FILE: &str = "drills.json";
/// A longer file (bytes) is not ours.
const MAX_BYTES: u64 = 1 << 20;

/// The reports in `directory`; none where there is no file.
///
/// # Errors
/// The file cannot be read or does not decode.
pub fn load(directory: &Path) -> io::Result<Vec<DrillReport>> {
    let path = directory.join(FILE);
    match fs::metadata(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
        Ok(meta) if meta.len() > MAX_BYTES => return Err(io::ErrorKind::FileTooLarge.into()),
        Ok(_) => {}
    }
    Ok(serde_json::from_slice(&fs::read(path)?)?)
}

/// Keeps `reports` in `directory`, all of them or what was there before.
///
/// # Errors
/// The file cannot be written.
pub fn save(directory: &Path, reports: &[DrillReport]) -> io::Result<()> {
    let new = directory.join("drills.json.new");
    fs::write(&new, serde_json::to_vec(reports)?)?;
    fs::rename(new, directory.join(FILE))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::DrillState;

    #[test]
    fn reports_are_read_back_and_no_file_is_no_report() {
        let directory = std::env::temp_dir().join(format!("shadowd-drills-{}", std::process::id()));
        fs::create_dir_all(&directory).expect("the temporary directory takes one more");
        assert_eq!(load(&directory).expect("no file is fine"), []);
        let report = DrillReport {
            group: "web".parse().expect("a name"),
            state: DrillState::Passed,
            scheduled: true,
            began_ms: 1,
            took_ms: 2,
            why: String::new(),
            steps: Vec::new(),
            last_passed_ms: Some(3),
        };
        save(&directory, std::slice::from_ref(&report)).expect("it can be written");
        assert_eq!(load(&directory).expect("it can be read"), [report]);
        fs::remove_dir_all(&directory).expect("it is ours");
    }
}
