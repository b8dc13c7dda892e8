//! What came of drills, in a file of its own: a restart forgets none.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use crate::facts::DrillRecord;

const FILE: &str = "drills.json";
/// A longer file (bytes) is not ours.
const MAX_BYTES: u64 = 4 << 20;

/// The record in `directory`; an empty one where there is no file.
///
/// # Errors
/// The file cannot be read or does not decode.
pub fn load(directory: &Path) -> io::Result<DrillRecord> {
    let path = directory.join(FILE);
    match fs::metadata(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(DrillRecord::default()),
        Err(error) => return Err(error),
        Ok(meta) if meta.len() > MAX_BYTES => return Err(io::ErrorKind::FileTooLarge.into()),
        Ok(_) => {}
    }
    Ok(serde_json::from_slice(&fs::read(path)?)?)
}

/// Keeps `record` in `directory`, all of it or what was there before.
///
/// # Errors
/// The file cannot be written.
pub fn save(directory: &Path, record: &DrillRecord) -> io::Result<()> {
    let new = directory.join("drills.json.new");
    let mut file = fs::File::create(&new)?;
    file.write_all(&serde_json::to_vec(record)?)?;
    // Else a power failure may leave the new name with nothing behind it.
    file.sync_all()?;
    fs::rename(new, directory.join(FILE))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::{DrillReport, DrillState};

    #[test]
    fn reports_are_read_back_and_no_file_is_no_report() {
        let directory = std::env::temp_dir().join(format!("shadowd-drills-{}", std::process::id()));
        fs::create_dir_all(&directory).expect("the temporary directory takes one more");
        let nothing = DrillRecord::default();
        assert_eq!(load(&directory).expect("no file is fine"), nothing);
        let report = DrillReport {
            group: "web".parse().expect("a name"),
            state: DrillState::Passed,
            scheduled: true,
            began_ms: 1,
            took_ms: 2,
            why: String::new(),
            steps: Vec::new(),
            last_passed_ms: Some(3),
            live: None,
        };
        let mut record = DrillRecord::default();
        record.put(report);
        save(&directory, &record).expect("it can be written");
        assert_eq!(load(&directory).expect("it can be read"), record);
        fs::remove_dir_all(&directory).expect("it is ours");
    }
}
