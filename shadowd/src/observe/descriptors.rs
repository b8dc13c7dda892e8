//! Where the kernel keeps the open files of a process, for the features that look at them.

use aya::programs::ProgramType;
use aya::sys::{BpfHelper, is_helper_supported};
use shadowd_common::descriptors::DescriptorOffsets;

use super::btf::Btf;
use super::fields::{Field, field, resolve};
use super::probes::LoadError;

const FIELDS: &[Field<DescriptorOffsets>] = &[
    field!("task_struct", ["files"], task_files),
    field!("files_struct", ["fdt"], files_table),
    field!("fdtable", ["max_fds"], table_size),
    field!("fdtable", ["fd"], table_files),
];

/// The offsets for this kernel.
///
/// # Errors
///
/// [`LoadError::NoField`] when it lacks one.
pub fn offsets(btf: &Btf) -> Result<DescriptorOffsets, LoadError> {
    let mut offsets = resolve(btf, FIELDS)?;
    let helper = BpfHelper::BPF_FUNC_get_current_task_btf;
    // Kernels before 5.11 lack it; when the question fails the other way is as right, and slower.
    let typed = is_helper_supported(ProgramType::RawTracePoint, helper).unwrap_or(false);
    offsets.typed = u32::from(typed);
    // Where a task says that it makes a 32-bit system call; 0 where it does not say it.
    offsets.task_status = (btf.offset("task_struct", &["thread_info", "status"])).unwrap_or(0);
    Ok(offsets)
}
