//! Tables as large as the kernel has memory for.

use aya::EbpfError;
use aya::maps::MapError;

/// No table is made smaller than this to find room: a page of a ring buffer.
const SIZE_MIN: u32 = 4_096;

/// Loads with tables of the sizes given; where the kernel has no memory for them, halves all until
/// it has, and says so.
pub(super) fn with_room<'n, T>(
    sizes: &[(&'n str, u32)],
    mut load: impl FnMut(&[(&'n str, u32)]) -> Result<T, EbpfError>,
) -> Result<(T, Option<String>), EbpfError> {
    let mut smaller = sizes.to_vec();
    loop {
        let error = match load(&smaller) {
            Ok(loaded) if smaller == sizes => return Ok((loaded, None)),
            Ok(loaded) => {
                let shown: Vec<String> = smaller
                    .iter()
                    .map(|(map, size)| format!("{map} {size}"))
                    .collect();
                let shown = shown.join(", ");
                return Ok((
                    loaded,
                    Some(format!("no memory for larger tables: {shown}")),
                ));
            }
            Err(error) => error,
        };
        let before = smaller.clone();
        for (_, size) in &mut smaller {
            // A ring buffer's size stays a power of two, and at least a page.
            *size = (*size / 2).max(SIZE_MIN.min(*size));
        }
        if !is_too_large(&error) || smaller == before {
            return Err(error);
        }
    }
}

/// Whether the kernel refused a table for its size.
fn is_too_large(error: &EbpfError) -> bool {
    let EbpfError::MapError(MapError::CreateError { io_error, .. }) = error else {
        return false;
    };
    matches!(
        io_error.raw_os_error(),
        Some(libc::ENOMEM | libc::E2BIG | libc::ENOSPC)
    )
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    fn no_memory() -> EbpfError {
        EbpfError::MapError(MapError::CreateError {
            name: "TABLE".to_owned(),
            io_error: io::Error::from_raw_os_error(libc::ENOMEM),
        })
    }

    #[test]
    fn a_table_without_memory_is_halved_until_it_fits_or_the_floor_is_reached() {
        let fits = |limit: u32| {
            with_room(&[("TABLE", 1 << 20), ("SMALL", 1)], |sizes| {
                if sizes[0].1 > limit {
                    return Err(no_memory());
                }
                Ok(sizes.to_vec())
            })
        };
        assert_eq!(fits(1 << 20).expect("it fits").1, None);
        let (sizes, why) = fits(300_000).expect("it fits after a while");
        assert_eq!(sizes, [("TABLE", 1 << 18), ("SMALL", 1)]);
        let why = why.expect("it was reduced");
        assert!(
            why.contains("no memory") && why.contains("TABLE 262144"),
            "{why}"
        );
        assert!(fits(100).is_err(), "there is a floor");
        let mut tries = 0;
        let other = with_room(&[("TABLE", 1 << 20)], |_| -> Result<(), _> {
            tries += 1;
            Err(EbpfError::MapError(MapError::InvalidName {
                name: String::new(),
            }))
        });
        assert!(other.is_err());
        assert_eq!(tries, 1, "another error is no reason to try again");
    }
}
