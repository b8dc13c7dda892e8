//! What should be running for a group: what is seen of it, what is learned, and what this host lacks.

mod accuracy;
mod act;
mod change;
mod confusion;
mod content;
mod digest;
mod firewall;
mod habit;
mod hash;
mod hot;
mod readiness;
mod repository;
mod status;
mod version;

pub use accuracy::{ProfileAccuracy, ResourceAccuracy};
pub use act::{Act, ActKind, ShellWord};
pub use change::Change;
pub use confusion::Confusion;
pub use content::{
    Content, Dependency, FileFact, FileKind, Need, PackageFact, Port, Profile, ResourceKind, Scope,
    UnitProfile, ValueHash, is_word,
};
pub use digest::{Beside, Digest, DiskInventory, HostInventory, Inventory, UnitDigest};
pub use firewall::{FilterChain, Passage};
pub use habit::{HOURS, Habit, Hour};
pub use hash::{Digest256, Digest256Error};
pub use hot::{Hot, HotFile};
pub use readiness::{Item, ItemKind, Readiness, Verdict};
pub use repository::{Listing, Place, RepositoryStatus, StoredObject};
pub use status::{ProfileStatus, ReadinessSummary};
pub use version::{Reason, Signed, Version, VersionId, VersionIdError};
