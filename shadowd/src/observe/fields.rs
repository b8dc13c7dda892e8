//! Finds fields of kernel structures for a feature's table of offsets.
//!
//! Each feature has one table of the fields its programs read; a kernel that lacks one degrades
//! that feature only, and the reason names the field.

use super::btf::Btf;
use super::probes::LoadError;

/// One field: where it is, and the offset that tells the kernel side.
pub struct Field<O> {
    /// The structure.
    pub structure: &'static str,
    /// Alternatives, the first that exists is taken: names differ between kernels.
    pub paths: &'static [&'static [&'static str]],
    /// Writes the offset.
    pub set: fn(&mut O, u32),
    /// Whether a kernel without it can still be used; the offset is then left as it is.
    pub optional: bool,
}

/// `field!("sock", ["__sk_common", "skc_family"], sk_family)`, alternatives separated by `|`.
macro_rules! field {
    ($structure:literal, $([$($step:literal),+])|+, $offset:ident) => {
        $crate::observe::fields::Field {
            structure: $structure,
            paths: &[$(&[$($step),+]),+],
            set: |offsets, offset| offsets.$offset = offset,
            optional: false,
        }
    };
}
pub(crate) use field;

/// Fills in the offsets.
///
/// # Errors
///
/// [`LoadError::NoField`] for the first field that the kernel lacks.
pub fn resolve<O: Default>(btf: &Btf, fields: &[Field<O>]) -> Result<O, LoadError> {
    let mut offsets = O::default();
    for field in fields {
        let mut found = None;
        let mut reason = None;
        for path in field.paths {
            match btf.offset(field.structure, path) {
                Ok(offset) => found = found.or(Some(offset)),
                Err(error) => reason = reason.or(Some(error.to_string())),
            }
        }
        match (found, reason) {
            (Some(offset), _) => (field.set)(&mut offsets, offset),
            (None, Some(reason)) if !field.optional => return Err(LoadError::NoField(reason)),
            (None, _) => {}
        }
    }
    Ok(offsets)
}
