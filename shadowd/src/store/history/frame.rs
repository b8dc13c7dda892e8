//! How records lie in a file, one after the other, and how they are found again after damage.
//!
//! ```text
//!  0  magic    F1 's' 'h' 'r'        24  wall clock, ms since 1970   i64
//!  4  kind     1 begin, 2 record     32  boot clock, ns              u64
//!  5  version  1                     40  length of the interval, ns  u64
//!  6  zero     u16                   48  CRC-32 of the content       u32
//!  8  length of the content   u32    52  CRC-32 of bytes 0 to 51     u32
//! 12  length unpacked         u32    56  content
//! 16  number of the record    u64
//! ```
//! Numbers are little-endian. A reader that finds no legal head searches for the next magic whose
//! head has the right checksum, so damage costs the records it touches and no others.

/// Length of a head.
pub const HEAD: usize = 56;
/// A longer content, packed or not, is not believed.
pub const MAX_CONTENT: usize = 64 << 20;

const MAGIC: [u8; 4] = [0xF1, b's', b'h', b'r'];
const VERSION: u8 = 1;

/// What a frame holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// First of a file: the boot id of the host that wrote it, as text.
    Begin,
    /// An observation.
    Record,
}

/// The head of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    pub kind: Kind,
    /// Bytes of the content.
    pub length: usize,
    /// The same, unpacked.
    pub unpacked: usize,
    pub number: u64,
    /// End of the interval.
    pub wall_ms: i64,
    pub boot_ns: u64,
    pub interval_ns: u64,
    checksum: u32,
}

impl Head {
    /// The head of a frame with `content`.
    pub fn new(kind: Kind, number: u64, content: &[u8], unpacked: usize) -> Self {
        Self {
            kind,
            length: content.len(),
            unpacked,
            number,
            wall_ms: 0,
            boot_ns: 0,
            interval_ns: 0,
            checksum: crc32fast::hash(content),
        }
    }

    /// Head and content together.
    pub const fn frame_length(&self) -> usize {
        HEAD + self.length
    }

    /// Begin of the interval on the wall clock, ms since 1970.
    pub fn begin_ms(&self) -> i64 {
        let interval_ms = i64::try_from(self.interval_ns / 1_000_000).unwrap_or(i64::MAX);
        self.wall_ms.saturating_sub(interval_ms)
    }

    pub fn encode(&self) -> [u8; HEAD] {
        let mut bytes = [0; HEAD];
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[4] = match self.kind {
            Kind::Begin => 1,
            Kind::Record => 2,
        };
        bytes[5] = VERSION;
        // Lengths are bounded by MAX_CONTENT.
        bytes[8..12].copy_from_slice(&(self.length as u32).to_le_bytes());
        bytes[12..16].copy_from_slice(&(self.unpacked as u32).to_le_bytes());
        bytes[16..24].copy_from_slice(&self.number.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.wall_ms.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.boot_ns.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.interval_ns.to_le_bytes());
        bytes[48..52].copy_from_slice(&self.checksum.to_le_bytes());
        let checksum = crc32fast::hash(&bytes[..52]);
        bytes[52..].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// The head at the begin of `bytes`; none when there is no legal one.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let head = bytes.get(..HEAD)?;
        let four = |at: usize| Some(u32::from_le_bytes(head.get(at..at + 4)?.try_into().ok()?));
        let eight = |at: usize| Some(u64::from_le_bytes(head.get(at..at + 8)?.try_into().ok()?));
        if head[..4] != MAGIC || four(52)? != crc32fast::hash(&head[..52]) || head[5] != VERSION {
            return None;
        }
        let bounded = |length: u32| Some(length as usize).filter(|length| *length <= MAX_CONTENT);
        Some(Self {
            kind: match head[4] {
                1 => Kind::Begin,
                2 => Kind::Record,
                _ => return None,
            },
            length: bounded(four(8)?)?,
            unpacked: bounded(four(12)?)?,
            number: eight(16)?,
            wall_ms: eight(24)?.cast_signed(),
            boot_ns: eight(32)?,
            interval_ns: eight(40)?,
            checksum: four(48)?,
        })
    }

    /// Whether `content` is what this head was made for.
    pub fn fits(&self, content: &[u8]) -> bool {
        content.len() == self.length && crc32fast::hash(content) == self.checksum
    }
}

/// A place in a file that holds no legal frame, or a frame whose content is not what it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Broken {
    /// Where it begins.
    pub offset: usize,
    /// Its head, when that is legal.
    pub head: Option<Head>,
}

/// The frames of `bytes` in order, and the broken places between them.
pub fn scan(bytes: &[u8]) -> impl Iterator<Item = Result<(Head, &[u8]), Broken>> {
    let mut at = 0;
    std::iter::from_fn(move || {
        if at >= bytes.len() {
            return None;
        }
        let offset = at;
        let Some(head) = Head::decode(&bytes[at..]) else {
            at = next_head(bytes, at + 1);
            return Some(Err(Broken { offset, head: None }));
        };
        let content = bytes.get(at + HEAD..at + head.frame_length());
        if let Some(content) = content.filter(|content| head.fits(content)) {
            at += head.frame_length();
            return Some(Ok((head, content)));
        }
        at = match content {
            Some(_) => at + head.frame_length(),
            None => next_head(bytes, at + 1), // cut off
        };
        let head = Some(head);
        Some(Err(Broken { offset, head }))
    })
}

/// Where the next legal head begins, from `at` on; the end when there is none.
fn next_head(bytes: &[u8], at: usize) -> usize {
    (at..bytes.len().saturating_sub(HEAD - 1))
        .find(|&at| bytes[at..].starts_with(&MAGIC) && Head::decode(&bytes[at..]).is_some())
        .unwrap_or(bytes.len())
}
