//! The decoders of this room, for the fuzzer: bytes of the kernel, and DNS answers of anybody.

use super::btf::Btf;
use super::{groups, host, lifecycle, names, opens, processes};

/// An IPv4 packet that claims to be a DNS answer; and a DNS message without its headers.
pub(crate) fn dns(bytes: &[u8]) {
    let carried = names::header_v4(bytes)
        .and_then(|length| bytes.get(length..))
        .and_then(names::payload);
    for message in [carried, Some(bytes)].into_iter().flatten() {
        for (_, name) in names::answers(message).unwrap_or_default() {
            assert!(name.bytes().all(|byte| byte.is_ascii_graphic()), "{name:?}");
        }
    }
}

/// An answer with an alias and compressed names.
pub(crate) fn dns_packets() -> Vec<Vec<u8>> {
    let message = b"\x12\x34\x81\x80\0\x01\0\x02\0\0\0\0\x03www\x07Example\x03org\0\0\x01\0\x01\
        \xc0\x0c\0\x05\0\x01\0\0\x0e\x10\0\x08\x05front\xc0\x10\
        \xc0\x2d\0\x01\0\x01\0\0\0\x3c\0\x04\xc0\0\x02\x01";
    let mut packet = vec![0x45; 20];
    packet.extend([0, 53, 0xc3, 0x50, 0, 8 + message.len() as u8, 0, 0]);
    packet.extend(message);
    vec![message.to_vec(), packet]
}

/// A record of the ring buffer of processes and control groups.
pub(crate) fn lifecycle(bytes: &[u8]) {
    let _ = lifecycle::decode(bytes);
}

/// A record of the ring buffer of opened files.
pub(crate) fn open(bytes: &[u8]) {
    if let Some(open) = opens::decode(bytes) {
        assert!(open.path.starts_with('/'));
    }
}

/// Records of every kind.
pub(crate) fn records() -> Vec<Vec<u8>> {
    let mut open = vec![9; 16];
    for word in [5_u32, 1, 22, 0] {
        open.extend(word.to_ne_bytes());
    }
    open.extend(b"nginx.conf\0nginx\0etc\0\0");
    let event = |kind: u32| {
        let mut bytes = kind.to_ne_bytes().to_vec();
        bytes.extend(20_u32.to_ne_bytes());
        bytes.extend([7; 8]);
        bytes.extend(b"/system.slice/nginx.service\0");
        bytes.resize(300, 0);
        bytes
    };
    let mut records: Vec<_> = (1..5).map(event).collect();
    records.push(open);
    records
}

/// The kernel's BTF, and every question that is asked of it.
pub(crate) fn btf(bytes: &[u8]) {
    let Ok(btf) = Btf::parse(bytes.to_vec()) else {
        return;
    };
    let _ = btf.offset("task_struct", &["tgid"]);
    let _ = btf.offset("outer", &["inner", "tgid"]);
    let _ = btf.is_pointer("task_struct", &["tgid"]);
    let _ = btf.tracepoint_arguments("mark_victim");
    let _ = btf.constant("kinds", "tgid");
}

/// A blob with a structure, an anonymous one in it, a typedef, a pointer, an enumeration and a
/// prototype.
pub(crate) fn btf_blobs() -> Vec<Vec<u8>> {
    let strings = b"\0task_struct\0tgid\0outer\0inner\0kinds\0btf_trace_mark_victim\0";
    let at = |name: &str| {
        let found = strings
            .windows(name.len())
            .position(|part| part == name.as_bytes());
        found.expect("it is one of the strings") as u32
    };
    let kind = |kind: u32, count: u32| kind << 24 | count;
    let types = [
        [0, kind(1, 0), 4, 32].to_vec(),
        [at("task_struct"), kind(4, 1), 8, at("tgid"), 1, 32].to_vec(),
        [0, kind(5, 1), 8, at("inner"), 2, 0].to_vec(),
        [at("outer"), kind(4, 2), 16, 0, 3, 0, at("kinds"), 2, 64].to_vec(),
        [at("kinds"), kind(6, 1), 4, at("tgid"), 3].to_vec(),
        [0, kind(13, 2), 0, 0, 1, 0, 7].to_vec(),
        [0, kind(2, 0), 6].to_vec(),
        [at("btf_trace_mark_victim"), kind(8, 0), 7].to_vec(),
    ];
    let types: Vec<u8> = types
        .concat()
        .iter()
        .flat_map(|word| word.to_ne_bytes())
        .collect();
    let mut blob = 0xeb9f_u16.to_ne_bytes().to_vec();
    blob.extend([1, 0]);
    for word in [
        24,
        0,
        types.len() as u32,
        types.len() as u32,
        strings.len() as u32,
    ] {
        blob.extend(word.to_ne_bytes());
    }
    blob.extend(types);
    blob.extend(strings);
    assert!(
        Btf::parse(blob.clone()).is_ok_and(|btf| btf.offset("outer", &["inner", "tgid"]) == Ok(4))
    );
    vec![blob]
}

/// The files of procfs and of control groups that are read here.
pub(crate) fn procfs(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let _ = host::stat(&text);
    let _ = host::memory(&text);
    let _ = host::load(&text);
    let _ = host::extension(&text, "ListenOverflows");
    let _ = host::disks(&text);
    let _ = groups::number(&text, "usage_usec");
    let _ = groups::pressure(&text);
    let _ = processes::context_switches(&text);
}

/// One of each.
pub(crate) fn procfs_texts() -> Vec<Vec<u8>> {
    let texts = [
        "cpu  100 10 50 900 30 5 5 2 40 0\ncpu0 1 1 1 1\nctxt 777\n",
        "MemTotal:  8048576 kB\nMemFree: 1 kB\nMemAvailable:  4048576 kB\n",
        "0.48 0.18 0.61 1/200 4711\n",
        "TcpExt: SyncookiesSent ListenOverflows\nTcpExt: 0 17\n",
        "   8       0 sda 1 2 3\n 253 1 dm-1 4\n",
        "usage_usec 1500\nuser_usec 18446744073709551615\n",
        "some avg10=0.48 avg60=0.18 total=16\nfull avg10=0.00 total=14\n",
        "Name:\tnginx\nvoluntary_ctxt_switches:\t150\nnonvoluntary_ctxt_switches:\t545\n",
    ];
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}
